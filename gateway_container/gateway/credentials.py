"""Credentials of external providers: sealed in the snapshot, or files of a mounted secret; in the clear only in memory.

Sealing: AES-256-GCM with a key derived (HKDF-SHA256) from the gateway token; the reference is authenticated with it.
"""

import base64
import binascii
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.core.dialects.sigv4 import AwsCredential, sign
from gateway.core.snapshot import Deployment
from gateway.core.stage import Header, Outgoing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

INFO = b"foundry gateway credentials v1"
NONCE_BYTES = 12
KEY_HEADERS = {"azure": b"api-key", "anthropic": b"x-api-key", "gemini": b"x-goog-api-key"}  # others: a bearer token
CONTENT_TYPE = "application/json"


class NoCredential(Exception):
    """A deployment needs a credential that is missing, or that was sealed for another gateway token."""


def _cipher(gateway_token: str) -> "AESGCM":
    # Imported on first use: it weighs 10 MB, and most gateways have no external provider.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), 32, salt=b"", info=INFO).derive(gateway_token.encode()))


def unseal(gateway_token: str, ref: str, sealed: str) -> str:
    """Raises NoCredential."""
    from cryptography.exceptions import InvalidTag

    try:
        data = base64.b64decode(sealed, validate=True)
        return _cipher(gateway_token).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], ref.encode()).decode()
    except (InvalidTag, binascii.Error, ValueError):
        raise NoCredential(f"credential {ref!r} cannot be opened with this gateway's token") from None


def aws_credential(ref: str, secret: str) -> AwsCredential:
    """Raises NoCredential."""
    try:
        return msgspec.json.decode(secret, type=AwsCredential)
    except msgspec.MsgspecError as error:
        raise NoCredential(f"credential {ref!r} is not a key of AWS: {error}") from None


class Credentials:
    """Finds the headers that authorise requests to a deployment."""

    def __init__(self, gateway_token: str, directory: Path | None) -> None:
        self._token = gateway_token
        self._directory = directory
        self.sealed: dict[str, str] = {}  # by reference, of the config in force

    def renew(self, sealed: dict[str, str]) -> None:
        """Those of a new config. For an empty one the control plane has none just now: what was known of it stays."""
        known = {ref: new or self.sealed.get(ref, "") for ref, new in sealed.items()}
        self.sealed = {ref: one for ref, one in known.items() if one}

    def headers(self, deployment: Deployment) -> list[Header]:
        """Raises NoCredential."""
        ref = deployment.credential_ref
        if ref is None:
            return []
        secret = self.secret(ref)
        name = KEY_HEADERS.get(deployment.provider)
        return [(name, secret.encode())] if name is not None else [(b"authorization", b"Bearer " + secret.encode())]

    def sign(self, deployment: Deployment, request: Outgoing) -> list[Header]:
        """The same where the headers depend on the request: Bedrock's. Raises NoCredential."""
        ref = deployment.credential_ref
        secret = self.secret(ref) if deployment.provider == "bedrock" and ref is not None else ""
        if not secret.startswith("{"):
            return self.headers(deployment)
        credential = aws_credential(str(ref), secret)
        host, path = deployment.authority.decode(), request.prefix + request.path
        return sign(credential, "bedrock", host, path, request.body, CONTENT_TYPE, time.time())

    def secret(self, ref: str) -> str:
        """The plaintext. Raises NoCredential."""
        secret = unseal(self._token, ref, self.sealed[ref]) if ref in self.sealed else self._from_file(ref)
        if not secret.isascii() or not secret.isprintable():
            raise NoCredential(f"credential {ref!r} is not printable ASCII")
        return secret

    def _from_file(self, ref: str) -> str:
        if self._directory is None or "/" in ref or ref.startswith("."):
            raise NoCredential(f"credential {ref!r} is not in the config")
        try:
            return (self._directory / ref).read_text().strip()
        except OSError:
            raise NoCredential(f"credential {ref!r} is neither in the config nor in {self._directory}") from None

"""Secrets at rest: an AES-256-GCM data key per secret, itself encrypted by KMS and bound to what the secret is for; and
sealed once more for the gateway that is to have them.

Needs the layer ``kube`` or ``secrets``, which hold ``cryptography``.
"""

import base64
import json
import os

from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from foundry_core.aws import client
from foundry_core.errors import FoundryError
from foundry_core.settings import settings

Context = dict[str, str]
_NONCE_BYTES = 12
_GATEWAY_INFO = b"foundry gateway credentials v1"
_IMPATIENT = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 2})
# What KMS answers about a secret or its key; anything else is about the moment, and another try may help.
_UNREADABLE = {"DisabledException", "IncorrectKeyException", "InvalidCiphertextException", "KMSInvalidStateException",
               "NotFoundException"}  # fmt: skip


class SecretUnreadable(FoundryError):
    """The secret was written for something else, changed, or its key is gone."""

    default_code = "secret_unreadable"


def seal(plaintext: str, context: Context) -> dict[str, str]:
    """``{"key", "nonce", "sealed"}`` in base64; only ``unseal`` with the same context opens it."""
    answer = client("kms").generate_data_key(
        KeyId=settings().secrets_key_id, KeySpec="AES_256", EncryptionContext=context
    )
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(answer["Plaintext"]).encrypt(nonce, plaintext.encode(), _bound(context))
    parts = {"key": answer["CiphertextBlob"], "nonce": nonce, "sealed": sealed}
    return {name: base64.b64encode(part).decode() for name, part in parts.items()}


def unseal(secret: dict[str, str], context: Context, patient: bool = True) -> str:
    """Raises ``SecretUnreadable``. Not ``patient``: for who cannot wait longer than 5 s for a KMS that is away."""
    parts = {name: base64.b64decode(value) for name, value in secret.items()}
    try:
        kms = client("kms") if patient else client("kms", _IMPATIENT)
        answer = kms.decrypt(CiphertextBlob=parts["key"], KeyId=settings().secrets_key_id, EncryptionContext=context)
        return AESGCM(answer["Plaintext"]).decrypt(parts["nonce"], parts["sealed"], _bound(context)).decode()
    except (ClientError, InvalidTag) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] not in _UNREADABLE:
            raise
        raise SecretUnreadable("The stored credentials cannot be decrypted.",
                               next_action="Send them again.") from error  # fmt: skip


def seal_for(gateway_token: str, ref: str, plaintext: str) -> str:
    """Only the gateway with this token opens it, and only as ``ref`` (docs/gateway.md: credentials)."""
    key = HKDF(SHA256(), 32, salt=b"", info=_GATEWAY_INFO).derive(gateway_token.encode())
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plaintext.encode(), ref.encode())).decode()


def _bound(context: Context) -> bytes:
    return json.dumps(context, sort_keys=True).encode()

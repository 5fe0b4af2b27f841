"""A kubeconfig from a stranger → the few facts that are needed to call one API server, or a plain refusal.

Nothing in it may make us run a program, read a file or skip the check of a certificate.
"""

import base64
import binascii
import ipaddress
import os
from typing import Any
from urllib.parse import SplitResult, urlsplit

import yaml
from pydantic import BaseModel

from functions.cluster.errors import KubeconfigInvalid

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same language, thirty times faster
_ADVICE = "Use a kubeconfig with the token or the client certificate of a service account."
_COMMANDS = {"exec": "a program to run", "auth-provider": "a program to run"}
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_REFUSED = {
    "proxy-url": "a proxy",
    "as": "impersonation",
    "as-uid": "impersonation",
    "as-groups": "impersonation",
    "as-user-extra": "impersonation",
    "username": "basic authentication",
    "password": "basic authentication",
}
_METADATA_NAMES = {"metadata.google.internal", "instance-data"}
_EC2_IPV6 = ipaddress.ip_address("fd00:ec2::254")


class Credentials(BaseModel):
    """How to call one API server; PEM texts are base64 as in a kubeconfig."""

    server: str
    ca_data: str | None = None
    tls_server_name: str | None = None
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None

    def config_dict(self) -> dict[str, Any]:
        """A kubeconfig that holds these facts and nothing else."""
        cluster = {"server": self.server, "certificate-authority-data": self.ca_data,
                   "tls-server-name": self.tls_server_name}  # fmt: skip
        user = {"token": self.token, "client-certificate-data": self.client_certificate_data,
                "client-key-data": self.client_key_data}  # fmt: skip
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": _present(cluster)}],
            "users": [{"name": "u", "user": _present(user)}],
        }  # fmt: skip


def _present(fields: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def parse(text: str) -> Credentials:
    """The credentials of the current context. Raises ``KubeconfigInvalid`` with the field at fault."""
    document = _document(text)
    context = _context(document)
    cluster = _named(document, "clusters", "cluster", _text(context, "cluster", "contexts.context") or "")
    user = _named(document, "users", "user", _text(context, "user", "contexts.context") or "")
    for section, where in ((cluster, "cluster"), (user, "user")):
        _refuse_dangerous(section, where)
    return Credentials(
        server=_server(cluster),
        ca_data=_pem(cluster, "certificate-authority-data", "cluster"),
        tls_server_name=_text(cluster, "tls-server-name", "cluster"),
        **_identity(user),
    )


def _document(text: str) -> dict[str, Any]:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise KubeconfigInvalid(f"The kubeconfig is larger than {MAX_BYTES:,} bytes.")
    try:
        _check_shape(text)
        document = yaml.load(text, _LOADER)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise KubeconfigInvalid("The kubeconfig is not valid YAML.") from error
    if not isinstance(document, dict) or document.get("kind", "Config") != "Config":
        raise KubeconfigInvalid("The kubeconfig is not an object of kind Config.")
    return document


def _check_shape(text: str) -> None:
    """Refuse aliases, which can stand for gigabytes, and deep nesting, which takes the parser quadratic time."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise KubeconfigInvalid("The kubeconfig uses YAML aliases, which are not accepted.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise KubeconfigInvalid("The kubeconfig is nested too deeply.")


def _context(document: dict[str, Any]) -> dict[str, Any]:
    name = _text(document, "current-context", "kubeconfig")
    if not name:
        raise KubeconfigInvalid("The kubeconfig has no current-context.", next_action="kubectl config use-context NAME")
    return _named(document, "contexts", "context", name)


def _named(document: dict[str, Any], plural: str, singular: str, name: str) -> dict[str, Any]:
    entries = document.get(plural)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(singular), dict):
            section: dict[str, Any] = entry[singular]
            return section
    raise KubeconfigInvalid(f"The kubeconfig has no {singular} named {name[:80]!r}.")


def _text(section: dict[str, Any], field: str, where: str) -> str | None:
    value = section.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise KubeconfigInvalid(f"{where}.{field} must be text.")
    return value


def _refuse_dangerous(section: dict[str, Any], where: str) -> None:
    for field, what in _COMMANDS.items():
        if section.get(field):
            raise KubeconfigInvalid(f"{where}.{field} names {what}; it is not run here.", next_action=_ADVICE)
    for field in _FILES:
        if section.get(field):
            raise KubeconfigInvalid(
                f"{where}.{field} names a file on your machine.", next_action="kubectl config view --flatten --minify"
            )
    for field, what in _REFUSED.items():
        if section.get(field):
            raise KubeconfigInvalid(f"{where}.{field} asks for {what}, which is not supported.",
                                    next_action=_ADVICE)  # fmt: skip
    if section.get("insecure-skip-tls-verify"):
        raise KubeconfigInvalid(f"{where}.insecure-skip-tls-verify is not accepted.",
                                next_action="Put the authority into certificate-authority-data.")  # fmt: skip


def _server(cluster: dict[str, Any]) -> str:
    server = _text(cluster, "server", "cluster") or ""
    try:
        url = urlsplit(server)
        host, _ = url.hostname or "", url.port
    except ValueError as error:
        raise KubeconfigInvalid("cluster.server is not a URL.") from error
    if url.scheme not in {"https", "http"} or not host or url.query or url.fragment or url.username:
        raise KubeconfigInvalid("cluster.server must be an https URL of an API server.")
    if url.scheme == "http" and not is_loopback(host):
        raise KubeconfigInvalid("cluster.server must use https: its credentials would travel in the clear.")
    if _is_forbidden(host) or (is_loopback(host) and _port(url) == _runtime_port()):
        raise KubeconfigInvalid("cluster.server is not the address of a cluster.")
    return server.rstrip("/")


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _runtime_port() -> int | None:
    """Lambda's own API listens on the function's loopback; whoever reaches it can answer for the function."""
    return urlsplit(f"//{os.environ.get('AWS_LAMBDA_RUNTIME_API', '')}").port


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """One form for each: an IPv4 address that is written as an IPv6 one is an IPv4 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host.rstrip(".") == "localhost"


def _is_forbidden(host: str) -> bool:
    """Addresses that serve a cloud's credentials, never a cluster."""
    address = _address(host)
    if address is None:
        return host.rstrip(".") in _METADATA_NAMES
    return address == _EC2_IPV6 or bool(address.is_link_local or address.is_multicast or address.is_unspecified)


def _identity(user: dict[str, Any]) -> dict[str, str | None]:
    token = _text(user, "token", "user")
    certificate = _pem(user, "client-certificate-data", "user")
    key = _pem(user, "client-key-data", "user")
    if token and not token.isprintable():
        raise KubeconfigInvalid("user.token holds characters that a token cannot have.")
    if not token and not (certificate and key):
        raise KubeconfigInvalid("The user has neither a token nor a client certificate with its key.",
                                next_action=_ADVICE)  # fmt: skip
    return {"token": token, "client_certificate_data": certificate, "client_key_data": key}


def _pem(section: dict[str, Any], field: str, where: str) -> str | None:
    value = _text(section, field, where)
    if value is None:
        return None
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KubeconfigInvalid(f"{where}.{field} is not base64.") from error
    if not decoded.lstrip().startswith(b"-----BEGIN "):
        raise KubeconfigInvalid(f"{where}.{field} is not PEM.")
    return value

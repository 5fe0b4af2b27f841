"""Kinds of fields that schemas of several files share."""

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
# Engines serve adapters under names of their publishers, such as org/adapter-v2.
ServedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$")]
# The names of an endpoint's adapters are written in one transaction with it, which has room for 100 items.
Adapters = Annotated[
    dict[ServedName, ServedName],
    Field(max_length=32, description="LoRA adapters: what clients call each, and what its engine does."),
]
_HOST = re.compile(r"([a-z0-9-]{1,63}\.)+[a-z]{2,63}")
_ENGINE_HOST = re.compile(r"[a-z0-9.-]+|[0-9a-f:.]+")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")  # what RFC 3986 allows
# Names that only a private network resolves, a cluster's own (.svc, .cluster.local) and clouds' metadata among them.
_INSIDE = frozenset({"arpa", "corp", "home", "internal", "intranet", "lan", "local", "localhost", "private", "svc"})
_OUTSIDE_ADVICE = "must be an https URL with a public host name, such as https://api.example.com"
_ADDRESS_ADVICE = "is not an http(s) address that gateways can use"


def outside(value: str) -> str:
    """Only what lies outside: a plain address could be anything in the gateways' own network. ``ValueError``."""
    url = _split(value, _OUTSIDE_ADVICE)
    host = url.hostname or ""
    if url.scheme != "https" or _HOST.fullmatch(host) is None or host.rpartition(".")[2] in _INSIDE:
        raise ValueError(_OUTSIDE_ADVICE)
    return _rebuilt(url)


def engine_address(value: str) -> str:
    """Where a gateway reaches an engine, as the cluster says: any host, but nothing that a gateway cannot read, since
    that would make it refuse its whole config. ``ValueError``."""
    url = _split(value, _ADDRESS_ADVICE)
    if url.scheme not in ("http", "https") or _ENGINE_HOST.fullmatch(url.hostname or "") is None:
        raise ValueError(_ADDRESS_ADVICE)
    return _rebuilt(url)


def _split(value: str, advice: str) -> SplitResult:
    """Without user, query and fragment, all in ASCII. ``ValueError``, also for a port that is none."""
    if not value.isascii() or not value.isprintable() or " " in value:  # urlsplit would drop some of these
        raise ValueError(advice)
    url = urlsplit(value)
    if url.port == 0 or "@" in url.netloc or url.query or url.fragment or _PATH.fullmatch(url.path) is None:
        raise ValueError(advice)
    return url


def _rebuilt(url: SplitResult) -> str:
    return f"{url.scheme}://{url.netloc.lower().rstrip(':')}{url.path}".rstrip("/")


OutsideUrl = Annotated[str, StringConstraints(max_length=500), AfterValidator(outside)]

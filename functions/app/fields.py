"""Kinds of fields that schemas of several files share."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
HOST = re.compile(r"([a-z0-9-]{1,63}\.)+[a-z]{2,63}")


def _outside(value: str) -> str:
    """Only what lies outside: a plain address could be anything in the gateways' own network."""
    url = urlsplit(value)
    if url.scheme != "https" or HOST.fullmatch(url.hostname or "") is None or url.username or url.query or url.fragment:
        raise ValueError("must be an https URL with a host name, such as https://api.example.com")
    return value.rstrip("/")


OutsideUrl = Annotated[str, StringConstraints(max_length=500), AfterValidator(_outside)]

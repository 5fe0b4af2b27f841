"""Answers of the front's own, and the errors that they tell of."""

from foundry_core.errors import FoundryError, Invalid, TooLarge, Unavailable

from .routes import Upstream

HEAD_BYTES = 64 * 1024
_REASONS = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 413: b"Content Too Large", 503: b"Service Unavailable"}


class BadRequest(FoundryError):
    status, title, default_code = 400, "Malformed request", "malformed_request"


def message(status: int, body: bytes, media_type: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s\r\n"
    return head % (status, _REASONS.get(status, b""), media_type, len(body), more) + body


def malformed() -> FoundryError:
    return BadRequest("This is not a sound HTTP request.")


def head_too_large() -> FoundryError:
    return Invalid(f"The head of the request is larger than {HEAD_BYTES // 1024} KB.", code="head_too_large")


def too_large(limit: int) -> FoundryError:
    return TooLarge(f"The body is larger than {limit // (1024 * 1024)} MB.", next_action="Send less at once.")


def unreachable(upstream: Upstream) -> FoundryError:
    detail = f"{upstream.name.capitalize()} is not there."
    return Unavailable(detail, code="upstream_unreachable", next_action="foundry status")


def too_late(upstream: Upstream) -> FoundryError:
    detail = f"{upstream.name.capitalize()} did not answer in time."
    return Unavailable(detail, code="upstream_timeout", next_action="Try again.")

"""Errors as RFC 9457 problem documents with a stable ``code`` and, where there is one, the next action.

FoundryError (500)
├── Invalid 422   NotFound 404   Conflict 409   Forbidden 403   Unauthenticated 401
├── PreconditionFailed 412   TooLarge 413
└── Unavailable 503
    └── TransientError (state machines retry it)
"""

from typing import Any, ClassVar

from pydantic import BaseModel

PROBLEM_JSON = "application/problem+json"
TYPE_BASE = "https://foundry.dev/problems/"


class Problem(BaseModel):
    """RFC 9457 body. ``errors`` lists single fields as ``{"field", "detail"}``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    next_action: str | None = None
    errors: list[dict[str, str]] | None = None
    extra: dict[str, Any] | None = None


class FoundryError(Exception):
    """A mistake or a fault that a person can be told about in one plain sentence."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        next_action: str | None = None,
        errors: list[dict[str, str]] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail, self.code, self.next_action = detail, code or self.default_code, next_action
        self.errors, self.extra = errors, extra

    def problem(self) -> Problem:
        return Problem(
            type=TYPE_BASE + self.code,
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            next_action=self.next_action,
            errors=self.errors,
            extra=self.extra,
        )


class Invalid(FoundryError):
    status, title, default_code = 422, "Invalid request", "invalid_request"


class NotFound(FoundryError):
    status, title, default_code = 404, "Not found", "not_found"


class Conflict(FoundryError):
    status, title, default_code = 409, "Conflict", "conflict"


class Forbidden(FoundryError):
    status, title, default_code = 403, "Forbidden", "forbidden"


class Unauthenticated(FoundryError):
    status, title, default_code = 401, "Not signed in", "unauthenticated"


class PreconditionFailed(FoundryError):
    status, title, default_code = 412, "Changed meanwhile", "precondition_failed"


class TooLarge(FoundryError):
    status, title, default_code = 413, "Body too large", "body_too_large"


class Unavailable(FoundryError):
    status, title, default_code = 503, "Unavailable", "unavailable"


class TransientError(Unavailable):
    """Worth another try with back-off; state machines retry it by this class name."""

    default_code = "transient"

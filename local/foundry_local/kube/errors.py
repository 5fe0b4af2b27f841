"""API errors, each one a Kubernetes `Status` document with the wording of the real API server."""

from foundry_local.kube.resources import ResourceType
from foundry_local.kube.types import Obj


class ApiError(Exception):
    """Carries the HTTP code, the machine-readable reason and the details of a `Status`."""

    def __init__(self, code: int, reason: str, message: str, details: Obj | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> Obj:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def qualified(resource: ResourceType) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _details(resource: ResourceType, name: str) -> Obj:
    return {"name": name, "group": resource.group, "kind": resource.plural}


def not_found(resource: ResourceType, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{qualified(resource)} "{name}" not found', _details(resource, name))


def unknown_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: ResourceType, name: str) -> ApiError:
    message = f'{qualified(resource)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(resource, name))


def stale(resource: ResourceType, name: str) -> ApiError:
    message = (
        f'Operation cannot be fulfilled on {qualified(resource)} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return ApiError(409, "Conflict", message, _details(resource, name))


def precondition_failed(resource: ResourceType, name: str, what: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": Precondition failed: {what}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def apply_conflict(conflicts: list[tuple[str, str]]) -> ApiError:
    """`conflicts`: (who, field path) of each field that another manager holds with another value."""
    lines = [f"conflict with {who}: {field}" for who, field in conflicts]
    head = f"Apply failed with {len(lines)} conflict{'s' if len(lines) > 1 else ''}"
    message = f"{head}: {lines[0]}" if len(lines) == 1 else head + ":\n- " + "\n- ".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": field}
        for who, field in conflicts
    ]
    return ApiError(409, "Conflict", message, {"causes": causes})


def invalid(resource: ResourceType, name: str, causes: list[tuple[str, str]]) -> ApiError:
    """`causes`: (field path, message); 422 as validation answers it."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    texts = [f"{field}: {message}" for field, message in causes]
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = {"name": name, "group": resource.group, "kind": resource.kind} | {
        "causes": [{"reason": "FieldValueInvalid", "message": message, "field": field} for field, message in causes]
    }
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {joined}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: ResourceType, name: str, why: str) -> ApiError:
    message = f'{qualified(resource)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _details(resource, name))


def expired(requested: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {requested} ({oldest})")


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(media_type: str) -> ApiError:
    message = (
        f"the body of the request was in an unknown format - {media_type!r} is not one of: "
        "application/json-patch+json, application/merge-patch+json, "
        "application/strategic-merge-patch+json, application/apply-patch+yaml"
    )
    return ApiError(415, "UnsupportedMediaType", message)


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit_bytes}")


def too_many(message: str) -> ApiError:
    return ApiError(429, "TooManyRequests", message)


def unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def internal() -> ApiError:
    return ApiError(500, "InternalError", "an error on the server prevented the request from succeeding")

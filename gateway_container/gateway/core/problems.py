"""What the gateway answers when it refuses or fails a request."""

from typing import Any

import msgspec

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "content_blocked": 400,
    "invalid_api_key": 401,
    "key_expired": 401,
    "blocked": 403,
    "address_not_allowed": 403,
    "model_not_allowed": 403,
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "header_too_large": 431,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "transfer_coding_unknown": 501,
    "upstream_unreachable": 502,
    "upstream_invalid": 502,
    "budget_unavailable": 503,
    "guardrail_unavailable": 503,
    "endpoint_closed": 503,
    "storage_unavailable": 503,
    "no_deployment": 503,
    "draining": 503,
    "upstream_timeout": 504,
}
MESSAGES: dict[str, str] = {
    "invalid_api_key": "The API key is missing or not known. Send it as 'Authorization: Bearer <key>'.",
    "key_expired": "The API key has expired. Ask the owner of the project for a new one.",
    "blocked": "The request is blocked by a rule of the gateway.",
    "address_not_allowed": "The API key may not be used from this address.",
    "model_not_allowed": "The API key may not use this model.",
    "model_not_found": "There is no such model. GET /v1/models lists those that the key may use.",
    "not_found": "There is no such path.",
    "method_not_allowed": "The path does not answer this method.",
    "request_timeout": "The request did not arrive in time.",
    "body_too_large": "The request body is larger than the gateway accepts.",
    "header_too_large": "The request headers are larger than the gateway accepts.",
    "rate_limit_exceeded": "The rate limit is reached. Try again shortly.",
    "insufficient_quota": "The budget is used up.",
    "transfer_coding_unknown": "Of transfer codings only chunked is known. Send the body so, or with Content-Length.",
    "upstream_unreachable": "No deployment of the model could be reached.",
    "upstream_invalid": "The deployment gave an answer that could not be understood.",
    "guardrail_unavailable": "The check of the content did not answer in time. Try again shortly.",
    "budget_unavailable": "The budget cannot be checked at the moment. Try again shortly.",
    "storage_unavailable": "Files and batches cannot be reached at the moment. Try again shortly.",
    "no_deployment": "No deployment of the model is available at the moment.",
    "draining": "This gateway is shutting down. Try again.",
    "upstream_timeout": "The deployment did not answer in time.",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def is_error(status: int) -> bool:
    """Whether an answer with this status says that the request failed."""
    return status >= 400


def outcome_of(status: int) -> str:
    """The metering row's outcome of an answer that is complete."""
    return "failed" if is_error(status) else "ok"


class Rejected(Exception):
    """The request ends here. ``code`` is stable; ``retry_after_s`` is set where trying again can help."""

    def __init__(self, code: str, message: str = "", *, param: str | None = None, retry_after_s: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or MESSAGES.get(code, "The request cannot be served.")
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        return STATUS[self.code]

    @property
    def outcome(self) -> str:
        """The metering row's outcome."""
        return "rejected" if self.status < 500 else "failed"

    def body(self, path: str) -> bytes:
        """The error in the shape that the clients of ``path`` expect (OpenAI's or Anthropic's)."""
        return msgspec.json.encode(self._anthropic() if path.startswith("/v1/messages") else self._openai())

    def _openai(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error" if self.code == "rate_limit_exceeded" else "insufficient_quota"
        return {"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}}

    def _anthropic(self) -> dict[str, Any]:
        kind = ANTHROPIC_TYPES.get(self.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message, "code": self.code}}


def closed(reason: str) -> Rejected:
    """Why an endpoint that cannot be used as it is configured answers nothing."""
    return Rejected("endpoint_closed", f"The endpoint is closed until this is corrected: {reason}.")

"""A domain's API as a Lambda handler: Mangum, Powertools context, and idempotent POSTs.

A POST that carries ``Idempotency-Key`` runs once per caller, route and key for 24 hours; a replay gets the first answer
(draft-ietf-httpapi-idempotency-key-header). Bodies that show a secret are stored without it.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyItemAlreadyExistsError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)
from fastapi import FastAPI
from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES

from foundry_core.errors import PROBLEM_JSON, Conflict, FoundryError, Invalid, Problem, Unavailable
from foundry_core.logs import logger
from foundry_core.settings import table_name

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
_KEY_HEADER = "idempotency-key"
SECRET_HEADER = "x-foundry-secret"  # set by a route to the name of the body field that shows a secret  # noqa: S105
_KEPT_SECONDS = 24 * 3600


_thread = threading.local()
_shown: ContextVar[dict[str, Any] | None] = ContextVar("shown", default=None)


class _NotKept(Exception):  # control flow: carries an answer that must not be remembered
    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response


def api_handler(app: FastAPI, domain: str) -> Handler:
    """The Lambda entry point for HTTP API (payload 2.0) events."""
    # Without this, problem documents would travel as base64.
    _ensure_loop()
    mangum = Mangum(app, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, PROBLEM_JSON])

    def serve(event: dict[str, Any], context: Any) -> dict[str, Any]:
        _ensure_loop()
        response: dict[str, Any] = mangum(event, context)
        return response

    once = _idempotent(serve, domain)

    @logger.inject_lambda_context(clear_state=True)
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        return _replayed(once, event, context) if _is_kept(event) else serve(event, context)

    return handler


def _ensure_loop() -> None:
    """Mangum runs on the thread's event loop, which Python no longer makes unasked, and which others may unset."""
    if getattr(_thread, "loop", None) is None:
        _thread.loop = asyncio.new_event_loop()
    asyncio.set_event_loop(_thread.loop)


def _is_kept(event: dict[str, Any]) -> bool:
    """Answers are kept per caller: without one (a gateway's own token, a refused request) there is nothing to keep."""
    context = event.get("requestContext", {})
    claims = ((context.get("authorizer") or {}).get("jwt") or {}).get("claims") or {}
    post = context.get("http", {}).get("method") == "POST"
    return bool(post and claims.get("sub") and event.get("headers", {}).get(_KEY_HEADER))


def _idempotent(serve: Handler, domain: str) -> Handler:
    store = DynamoDBPersistenceLayer(
        table_name=table_name(domain), key_attr="pk", sort_key_attr="sk", static_pk_value="IDEMPOTENCY",
        expiry_attr="expires_at", in_progress_expiry_attr="in_progress_until", validation_key_attr="payload_hash",
    )  # fmt: skip
    config = IdempotencyConfig(
        event_key_jmespath="[requestContext.authorizer.jwt.claims.sub, rawPath, foundry_idempotency_key]",
        payload_validation_jmespath="body",
        expires_after_seconds=_KEPT_SECONDS,
    )

    @idempotent(config=config, persistence_store=store)
    def once(event: dict[str, Any], context: Any) -> dict[str, Any]:
        response = serve(event, context)
        if response["statusCode"] >= 400:
            raise _NotKept(response)
        _shown.set(response)
        return _without_secret(response)

    return once


def _without_secret(response: dict[str, Any]) -> dict[str, Any]:
    field = response.get("headers", {}).get(SECRET_HEADER)
    if not field:
        return response
    body = json.dumps({**json.loads(response["body"]), field: None})
    headers = {**response["headers"], "content-length": str(len(body.encode()))}
    return {**response, "headers": headers, "body": body}


def _replayed(once: Handler, event: dict[str, Any], context: Any) -> dict[str, Any]:
    event = {**event, "foundry_idempotency_key": event["headers"][_KEY_HEADER]}
    _shown.set(None)
    try:
        kept = once(event, context)
        return _shown.get() or kept
    except _NotKept as answer:
        return answer.response
    except IdempotencyValidationError:
        return _answer(Invalid("This Idempotency-Key was used with another body.", code="idempotency_key_reused"))
    except (IdempotencyAlreadyInProgressError, IdempotencyItemAlreadyExistsError):
        return _answer(Conflict("The same request is being worked on.", code="in_progress", next_action="Retry soon."))
    except IdempotencyPersistenceLayerError:
        logger.exception("idempotency store")
        return _answer(Unavailable("The store of idempotency keys did not answer.", next_action="Retry."))


def _answer(error: FoundryError) -> dict[str, Any]:
    problem: Problem = error.problem()
    body = json.dumps(problem.model_dump(exclude_none=True))
    return {"statusCode": problem.status, "headers": {"content-type": PROBLEM_JSON}, "body": body}

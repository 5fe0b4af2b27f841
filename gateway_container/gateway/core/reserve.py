"""Worst-case reservations: what a request could cost at most, so that settling it never exceeds what was held."""

from typing import TYPE_CHECKING, Final

from gateway.core.call import (
    CHAT,
    NULL,
    RESPONSES,
    USAGE_OPTION_PATHS,
    Call,
    continues,
    fetches,
    plain_text,
    prompts,
    unescaped,
)
from gateway.core.lease import Scope
from gateway.core.problems import Rejected
from gateway.core.snapshot import Endpoint
from gateway.core.usage import TEXT_PATHS, Usage
from gateway.core.wire import Price

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

DEFAULT_MAX_OUTPUT_TOKENS: Final = 4096
PICTURE_PATHS: Final = "/v1/images/"
LIMITED_PATHS: Final = USAGE_OPTION_PATHS | {RESPONSES}  # where a limit may be missing
# A picture or a recording behind a URL is worth more tokens than the bytes of its address.
TOKENS_PER_ATTACHMENT: Final = 16384
ATTACHMENT_MARKS: Final = (
    b'"image_url"',
    b'"input_image"',
    b'"input_audio"',
    b'"audio_url"',
    b'"source"',  # Anthropic's
)
# A document, a video, what the provider keeps of a conversation or looks up: a context, the longest in the field.
CONTEXT_TOKENS: Final = 1 << 20
LONG_MARKS: Final = (
    b'"file_data"',  # compressed
    b'"file_id"',
    b'"file_url"',
    b'"input_file"',
    b'"document"',
    b'"document_url"',
    b'"video_url"',
    b'"input_video"',
)
# The dearest picture of OpenAI's (high quality, 1024 x 1536) has 6,240, and 300 more where it is streamed in parts.
TOKENS_PER_PICTURE: Final = 8192
PICTURES_OF_A_FORM: Final = 10  # the most that OpenAI makes; a form is passed on before all its fields are known
# Providers and chat templates put instructions of their own before tools (Anthropic: some 500 tokens).
TOKENS_OF_INSTRUCTIONS: Final = 1024


def input_bound(call: Call, body: bytes, path: str) -> int:
    """At most how many prompt tokens a body can be: no tokenizer makes more than one token of a byte."""
    size = len(body)
    if call.tools is not NULL:
        size += TOKENS_OF_INSTRUCTIONS
    if (path == RESPONSES and continues(call)) or fetches(call):
        return size + CONTEXT_TOKENS
    if plain_text(call):
        return size
    body = unescaped(body)
    for mark in LONG_MARKS:
        if body.find(mark) >= 0:
            return size + CONTEXT_TOKENS
    attachments = call.recordings + sum([body.count(mark) for mark in ATTACHMENT_MARKS])
    return size + attachments * TOKENS_PER_ATTACHMENT


def asked_output(call: Call, path: str) -> int | None:
    """The output limit per choice that the client named, None for none. Only the names that engines read on ``path``
    count; of a chat's two the larger, as engines differ in which they prefer."""
    asked = call.max_output_tokens if path == RESPONSES else call.max_tokens
    other = call.max_completion_tokens if path == CHAT else None
    if other and (asked is None or other > asked):  # a 0 of this name is no limit to some engines
        asked = other
    return asked if asked is not None and asked >= 0 else None


def output_bound(call: Call, path: str, endpoint: Endpoint) -> int:
    """At most how many tokens all choices of all prompts together can be."""
    if path.startswith(PICTURE_PATHS):
        pictures = PICTURES_OF_A_FORM if call.in_form else max(call.n or 1, 1)
        return TOKENS_PER_PICTURE * pictures * prompts(call)
    ceiling = endpoint.max_output_tokens
    each = asked_output(call, path)
    if each is None or (ceiling is not None and each > ceiling):
        each = ceiling or DEFAULT_MAX_OUTPUT_TOKENS
    each = each or 1  # an engine makes one to answer with none
    if call.prompt is not NULL:
        each *= prompts(call)
    return each if call.n is None and call.best_of is None else each * max(call.n or 1, call.best_of or 1, 1)


def added_limit(call: Call, path: str, endpoint: Endpoint) -> int | None:
    """The token limit to send along where neither the client nor the engine bounds the output."""
    if path not in LIMITED_PATHS or endpoint.max_output_tokens is not None or asked_output(call, path) is not None:
        return None
    return DEFAULT_MAX_OUTPUT_TOKENS


def refuse_beyond(scope: Scope, amount: int, exchange: "Exchange") -> None:
    """Raises Rejected when a request may take more than the whole limit, so that waiting cannot help."""
    if amount > scope.limit:
        code = "insufficient_quota" if scope.kind == "money_nanos" else "rate_limit_exceeded"
        message = f"The request could use {amount} {scope.kind}, and the limit of {scope.name} is {scope.limit}."
        raise Rejected(code, f"{message} {_way_out(scope, exchange)}")


def _way_out(scope: Scope, exchange: "Exchange") -> str:
    """What a client can do whose request may take too much."""
    if scope.kind == "requests":
        return "Ask the owner of the project for a higher limit."
    call, path, body = exchange.call, exchange.path, exchange.body
    if call is not None and input_bound(call, body, path) - len(body) >= CONTEXT_TOKENS:
        return (
            f"What the provider keeps or looks up, a file or a video counts as {CONTEXT_TOKENS:,} tokens: send its "
            "text in the request instead, or ask the owner of the project for a higher limit."
        )
    name = "max_output_tokens" if path == RESPONSES else "max_tokens"
    return f"Shorten the request or name a smaller {name}." if path in TEXT_PATHS else "Shorten the request."


def refuse_for_now(scope: Scope, now_ms: int) -> None:
    """Raises Rejected while the control plane's last word on a short scope stands."""
    if now_ms >= scope.retry_at_ms:
        return
    retry_after_s = max((scope.retry_at_ms - now_ms) // 1000, 1)
    if scope.refused:
        message = f"The limit of {scope.name} cannot be checked. Ask the operator of the gateway to look at its log."
        raise Rejected("budget_unavailable", message, retry_after_s=retry_after_s)
    code = "insufficient_quota" if scope.kind == "money_nanos" else "rate_limit_exceeded"
    spent = f"The budget of {scope.name} is used up, or what is left of it is held for other requests."
    message = "" if code == "rate_limit_exceeded" else spent
    raise Rejected(code, message, retry_after_s=retry_after_s)


def cost_nanos(price: Price | None, usage: Usage) -> int:
    """Cost in nano-USD of what was used; cached input at its own price where there is one."""
    if price is None:
        return 0
    cached = min(usage.cached_tokens, usage.input_tokens)
    cached_price = price.cached_nanos_per_token
    if cached_price is None:
        cached_price = price.input_nanos_per_token
    fresh = (usage.input_tokens - cached) * price.input_nanos_per_token
    return fresh + cached * cached_price + usage.output_tokens * price.output_nanos_per_token

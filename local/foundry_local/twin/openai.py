"""OpenAI request bodies, read as vLLM reads them, and the documents and stream chunks that answer them."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from foundry_local.twin.tokens import count_tokens

MAX_CHOICES = 128
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_REPLY = 3
_TOKENS_PER_IMAGE = 256


class RequestError(ValueError):
    """Answered as vLLM's `ErrorResponse`."""

    def __init__(self, message: str, code: int = 400, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param

    def document(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


@dataclass(frozen=True, slots=True)
class Generation:
    """A chat or text completion request, checked."""

    chat: bool
    prompts: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    max_tokens: int | None
    choices: int
    stream: bool
    include_usage: bool
    stop: tuple[str, ...]
    ignore_eos: bool
    min_tokens: int
    seed: int | None
    echo: bool = False


def parse_json(body: bytes) -> dict[str, Any]:
    """Raises: RequestError."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("There was an error parsing the body") from None
    if not isinstance(document, dict):
        raise RequestError("Input should be a valid dictionary or object to extract fields from", param="body")
    return document


def parse_chat(body: Mapping[str, Any]) -> Generation:
    """`/v1/chat/completions`. Raises: RequestError."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages: Field required, a list of at least one message", param="messages")
    texts, tokens = [], _TOKENS_PER_REPLY
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RequestError("messages: each message needs a role", param="messages")
        text, extra = _content(message.get("content"))
        texts.append(f"{message['role']}: {text}")
        tokens += _TOKENS_PER_MESSAGE + count_tokens(text) + extra
    for key in ("tools", "functions"):
        if body.get(key):
            tokens += count_tokens(json.dumps(body[key]))
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _generation(body, True, ("\n".join(texts),), (tokens,), _integer(body, limit, 1))


def _content(content: Any) -> tuple[str, int]:
    """The text of a message and the tokens of what is not text."""
    if content is None or isinstance(content, str):
        return content or "", 0
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RequestError("messages: content must be a string or a list of parts", param="messages")
    texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
    return "\n".join(texts), _TOKENS_PER_IMAGE * sum(part.get("type") != "text" for part in content)


def parse_completion(body: Mapping[str, Any]) -> Generation:
    """`/v1/completions`. Raises: RequestError."""
    prompts, tokens = _prompts(body.get("prompt"))
    max_tokens = _integer(body, "max_tokens", 0)
    return _generation(body, False, prompts, tokens, 16 if max_tokens is None else max_tokens)


def _prompts(value: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A text, a list of texts, a list of token ids, or a list of those lists."""
    if isinstance(value, str):
        return (value,), (count_tokens(value),)
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return tuple(value), tuple(count_tokens(item) for item in value)
        if all(isinstance(item, int) for item in value):
            return (" ".join(map(str, value)),), (len(value),)
        if all(isinstance(item, list) and item for item in value):
            return tuple(" ".join(map(str, item)) for item in value), tuple(len(item) for item in value)
    raise RequestError("prompt: Field required, a string, a list of strings or token ids", param="prompt")


def _generation(
    body: Mapping[str, Any], chat: bool, prompts: tuple[str, ...], tokens: tuple[int, ...], max_tokens: int | None
) -> Generation:
    _check_sampling(body)
    stream = bool(body.get("stream"))
    options = body.get("stream_options")
    if options is not None and not stream:
        raise RequestError("Stream options can only be defined when `stream=True`.", param="stream_options")
    if options is not None and not isinstance(options, dict):
        raise RequestError("stream_options: Input should be an object", param="stream_options")
    return Generation(
        chat=chat,
        prompts=prompts,
        prompt_tokens=tokens,
        max_tokens=max_tokens,
        choices=_integer(body, "n", 1) or 1,
        stream=stream,
        include_usage=bool((options or {}).get("include_usage")),
        stop=_stop(body.get("stop")),
        ignore_eos=bool(body.get("ignore_eos")),
        min_tokens=_integer(body, "min_tokens", 0) or 0,
        seed=_integer(body, "seed", -(2**63)),
        echo=bool(body.get("echo")) and not chat,
    )


def _check_sampling(body: Mapping[str, Any]) -> None:
    for key, low, high in (
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("presence_penalty", -2.0, 2.0),
        ("frequency_penalty", -2.0, 2.0),
    ):
        value = body.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RequestError(f"{key} must be in [{low:g}, {high:g}], got {value!r}.", param=key)
    if (_integer(body, "n", 1) or 1) > MAX_CHOICES:
        raise RequestError(f"n must be at most {MAX_CHOICES}.", param="n")
    if body.get("logprobs") not in (None, False):
        raise RequestError("the twin engine computes no log probabilities; leave logprobs out", param="logprobs")


def _integer(body: Mapping[str, Any], key: str, low: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise RequestError(f"{key} must be at least {low}, got {value!r}.", param=key)
    return value


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(item, str) and item for item in texts):
        raise RequestError("stop must be a non-empty string or a list of them", param="stop")
    return tuple(texts)


def new_id(chat: bool) -> str:
    return f"{'chatcmpl' if chat else 'cmpl'}-{uuid4().hex}"


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }


def dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class ChunkWriter:
    """Server-sent events of one stream. The frame around a token is rendered once, so a token costs a join."""

    def __init__(self, generation: Generation, model: str, request_id: str) -> None:
        self._chat = generation.chat
        self._base = {
            "id": request_id,
            "object": "chat.completion.chunk" if generation.chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._heads = [self._head(index) for index in range(generation.choices * len(generation.prompts))]
        self._tail = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
        if not self._chat:
            self._tail = b'","logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'

    def _head(self, index: int) -> bytes:
        opening = dumps(self._base)[:-1]
        part = b'"delta":{"content":"' if self._chat else b'"text":"'
        return b"data: " + opening + b',"choices":[{"index":%d,' % index + part

    def role(self, index: int) -> bytes:
        """The first chunk of a chat choice."""
        choice = {"index": index, "delta": {"role": "assistant", "content": ""}}
        return self.event({"choices": [choice | {"logprobs": None, "finish_reason": None}]})

    def text(self, index: int, text: str) -> bytes:
        """A piece of text; `text` is ASCII filler, which JSON needs no escapes for."""
        return self._heads[index] + text.encode() + self._tail

    def finish(self, index: int, text: str, reason: str) -> bytes:
        part: dict[str, Any] = {"delta": {"content": text}} if self._chat else {"text": text}
        ending = {"logprobs": None, "finish_reason": reason, "stop_reason": None}
        return self.event({"choices": [{"index": index} | part | ending]})

    def usage(self, prompt: int, completion: int) -> bytes:
        return self.event({"choices": [], "usage": usage(prompt, completion)})

    def event(self, part: dict[str, Any]) -> bytes:
        return b"data: " + dumps(self._base | part) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def parse_inputs(body: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The `input` of `/v1/embeddings`. Raises: RequestError."""
    try:
        return _prompts(body.get("input"))
    except RequestError:
        raise RequestError("input: Field required, a string, a list of strings or token ids", param="input") from None


def parse_dimensions(body: Mapping[str, Any], hidden: int) -> int:
    """Raises: RequestError."""
    wanted = _integer(body, "dimensions", 1)
    if wanted is not None and wanted > hidden:
        raise RequestError(f"dimensions must be at most {hidden}, got {wanted}.", param="dimensions")
    return wanted or hidden

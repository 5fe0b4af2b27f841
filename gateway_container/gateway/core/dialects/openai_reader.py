"""OpenAI chat completions: answers of providers, whole and streamed."""

import msgspec

from gateway.core import sse
from gateway.core.dialects.conversation import (
    Begin,
    Event,
    Failed,
    Finish,
    Reason,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
    Used,
)  # fmt: skip
from gateway.core.dialects.document import of_provider
from gateway.core.dialects.event_reader import EventStreamReader
from gateway.core.stage import Garbled

REASONS: dict[str, Reason] = {
    "stop": "stop", "length": "length", "model_length": "length", "tool_calls": "tool_calls",
    "function_call": "tool_calls", "content_filter": "content_filter",
}  # fmt: skip


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Named(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    function: Named = msgspec.field(default_factory=Named)
    index: int | None = None
    id: str | None = None


class Detail(msgspec.Struct):
    """OpenRouter's form of a thought, with its signature or sealed."""

    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    data: str | None = None


class Piece(msgspec.Struct):
    """Mistral's form of content: text, or a thought made of texts."""

    text: str = ""
    thinking: list["Piece"] = []


class Said(msgspec.Struct):
    """A message, or what a chunk adds to it."""

    content: str | list[Piece] | None = None
    reasoning_details: list[Detail] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM: the stop sequence


class Failure(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class Answer(msgspec.Struct):
    id: str = ""
    model: str = ""
    choices: list[Choice] = []
    usage: WireUsage | None = None
    error: Failure | None = None


_decoder = msgspec.json.Decoder(Answer)


class Reader(EventStreamReader):
    """Reads an answer; ``feed`` for a stream, ``whole`` for a body. Raises Garbled."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = self._done = False
        self._reason: Reason | None = None
        self._numbers: dict[int, int] = {}  # a call's index -> its number

    def whole(self, body: bytes) -> list[Event]:
        events = self._answer(of_provider(body, _decoder))
        if self._reason is None:
            raise Garbled("no choice")
        return events

    def _ended(self) -> bool:
        return self._done or self._reason is not None

    def _event(self, text: bytes) -> list[Event]:
        if text == sse.DONE:
            self._done = self._done or self._begun  # alone it is no answer
            return []
        return self._answer(of_provider(text, _decoder))

    def _answer(self, answer: Answer) -> list[Event]:
        if answer.error is not None:
            self._done = True
            return [Failed(_status(answer.error), answer.error.message)]
        events: list[Event] = []
        if not self._begun:
            if not answer.choices:  # garbage, or Azure's first chunk, which does not name the answer yet
                return events
            self._begun = True
            events.append(Begin(answer.id, answer.model))
        for choice in answer.choices:
            events += self._choice(choice)
        if answer.usage is not None:
            events.append(Used(_tokens(answer.usage)))
        return events

    def _choice(self, choice: Choice) -> list[Event]:
        said = choice.message or choice.delta or Said()
        events = _thoughts(said) + _texts(said.content or said.refusal or "")
        for place, call in enumerate(said.tool_calls or []):
            events += self._call(call, place if call.index is None else call.index)
        if choice.finish_reason is not None and self._reason is None:
            self._reason = REASONS.get(choice.finish_reason, "stop")
            stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None
            events.append(Finish(self._reason, stop))
        return events

    def _call(self, call: Call, index: int) -> list[Event]:
        events: list[Event] = []
        if index not in self._numbers:
            if not call.function.name:
                raise Garbled("a tool call without a name")
            number = self._numbers[index] = len(self._numbers)
            events.append(ToolStart(number, call.id or f"call_{number}", call.function.name))
        if call.function.arguments:
            events.append(ToolDelta(self._numbers[index], call.function.arguments))
        return events


def _thoughts(said: Said) -> list[Event]:
    if said.reasoning_details:
        return [ThinkingDelta(d.text or d.summary or "", d.signature, d.data) for d in said.reasoning_details]
    thought = said.reasoning_content or said.reasoning
    return [ThinkingDelta(thought)] if thought else []


def _texts(content: str | list[Piece]) -> list[Event]:
    if isinstance(content, str):
        return [TextDelta(content)] if content else []
    events: list[Event] = []
    for piece in content:
        events += [ThinkingDelta(thought.text) for thought in piece.thinking]
        events += _texts(piece.text)
    return events


def _status(failure: Failure) -> int:
    return failure.code if isinstance(failure.code, int) and 400 <= failure.code <= 599 else 500


def _tokens(usage: WireUsage) -> Tokens:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return Tokens(
        max(usage.prompt_tokens, 0),
        max(usage.completion_tokens or 0, 0),
        max(prompt.cached_tokens or 0, 0) if prompt else 0,
        max(prompt.cache_write_tokens or 0, 0) if prompt else 0,
        max(completion.reasoning_tokens or 0, 0) if completion else 0,
    )

"""The neutral form: what every dialect can say about a conversation, as data."""

from typing import Literal, NoReturn

import msgspec

from gateway.core.problems import Rejected

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Reason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]


class Text(msgspec.Struct):
    text: str
    cache_ttl: str | None = None  # a prefix to cache ends here; "5m" or "1h"


class Media(msgspec.Struct):
    """A picture, a document or a recording: base64 ``data`` with its type, or an https ``url``."""

    kind: Literal["image", "document", "audio"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    name: str | None = None
    cache_ttl: str | None = None


class Thinking(msgspec.Struct):
    """Reasoning of the model, or (``redacted``) its sealed form."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class ToolCall(msgspec.Struct):
    id: str
    name: str
    arguments: str  # a JSON object
    signature: str | None = None  # that some models want back


class ToolResult(msgspec.Struct):
    call_id: str
    parts: list[Text | Media]
    is_error: bool = False
    cache_ttl: str | None = None


Part = Text | Media | Thinking | ToolCall | ToolResult


class Turn(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    parts: list[Part]


class Tool(msgspec.Struct):
    name: str
    description: str | None = None
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    cache_ttl: str | None = None


class ToolChoice(msgspec.Struct):
    mode: Literal["auto", "none", "required", "one"]
    name: str = ""  # of the one


class Format(msgspec.Struct):
    """The answer is JSON: any object, or one that fits a schema."""

    schema: msgspec.Raw | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Reasoning(msgspec.Struct):
    """How much the model shall think: an effort, or at most so many tokens, or as it sees fit (``adaptive``)."""

    effort: Effort | None = None
    budget_tokens: int | None = None
    adaptive: bool = False


class Conversation(msgspec.Struct):
    """A request. None: the client does not say."""

    turns: list[Turn]
    system: list[Text] = []
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] = []
    response_format: Format | None = None
    reasoning: Reasoning | None = None
    user: str | None = None


class Tokens(msgspec.Struct):
    """What was used; ``input`` includes both kinds of cached tokens, ``output`` includes ``reasoning``."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Begin(msgspec.Struct):
    """The first event of every answer."""

    id: str
    model: str


class TextDelta(msgspec.Struct):
    text: str


class ThinkingDelta(msgspec.Struct):
    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class ToolStart(msgspec.Struct):
    """Calls are numbered from 0."""

    number: int
    id: str
    name: str
    signature: str | None = None


class ToolDelta(msgspec.Struct):
    number: int
    arguments: str


class Finish(msgspec.Struct):
    reason: Reason
    stop_sequence: str | None = None


class Used(msgspec.Struct):
    tokens: Tokens


class Failed(msgspec.Struct):
    """The provider gave up in the middle of a stream."""

    status: int
    message: str


Event = Begin | TextDelta | ThinkingDelta | ToolStart | ToolDelta | Finish | Used | Failed


def refuse(param: str, why: str = "") -> NoReturn:
    """Raises Rejected: the deployment's provider has no word for what the client says."""
    message = why or f"The field '{param}' cannot be translated for the provider of this model. Leave it out."
    raise Rejected("invalid_request", message, param=param)


def refuse_set(conversation: Conversation, *names: str) -> None:
    """Raises Rejected when one of these optional fields says something."""
    for name in names:
        if getattr(conversation, name):
            refuse(name)


def without_thinking(turns: list[Turn]) -> list[Turn]:
    """For providers that refuse to see what a model thought."""
    return [Turn(turn.role, [part for part in turn.parts if not isinstance(part, Thinking)]) for turn in turns]


def merged(turns: list[Turn]) -> list[Turn]:
    """The same with neighbours of one role joined, as some providers want roles to alternate."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            joined[-1] = Turn(turn.role, [*joined[-1].parts, *turn.parts])
        else:
            joined.append(turn)
    return joined

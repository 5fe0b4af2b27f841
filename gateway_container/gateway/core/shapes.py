"""What JSON is decoded into and rows are encoded from. Apart, because msgspec wants classes that are not compiled.

``gc=False``: made for every request, and never part of a cycle.
"""

from typing import Annotated

import msgspec

# More is nobody's wish, and what a request may cost has to stay a number that every part of the platform can hold.
TokenLimit = Annotated[int, msgspec.Meta(le=2**31 - 1)]
Choices = Annotated[int, msgspec.Meta(le=10_000)]


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


NULL = msgspec.Raw(b"null")


class Recording(msgspec.Struct):
    id: str | None = None


class TextMessage(msgspec.Struct, gc=False):
    content: str | None = None
    audio: None = None


class Message(msgspec.Struct):
    content: str | list[msgspec.Raw] | None = None
    audio: Recording | None = None  # what the model said before, which the provider keeps


class Item(msgspec.Struct):
    """Of the Responses API's input. One without a type is a reference, but for messages."""

    type: str | None = None
    content: msgspec.Raw = NULL


class Tool(msgspec.Struct, gc=False):
    type: str | None = None


class WireCall(msgspec.Struct, gc=False):
    """What ``core.call.Call`` is made of. Those below add ``messages``."""

    model: str
    stream: bool | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    max_output_tokens: TokenLimit | None = None
    n: Choices | None = None
    best_of: Choices | None = None
    stream_options: StreamOptions | None = None
    input: msgspec.Raw = NULL
    prompt: msgspec.Raw = NULL
    tools: msgspec.Raw = NULL
    previous_response_id: msgspec.Raw = NULL
    conversation: msgspec.Raw = NULL
    web_search_options: msgspec.Raw = NULL
    mcp_servers: msgspec.Raw = NULL
    data_sources: msgspec.Raw = NULL


class TextCall(WireCall):
    """A call whose messages are strings only, if it has any."""

    messages: list[TextMessage] = []


class ChatCall(WireCall):
    """A call whose messages have the shape that they should have."""

    messages: list[Message] = []


class OddCall(WireCall):
    """A call whose messages are the deployment's to refuse."""

    messages: msgspec.Raw = NULL


class Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    """OpenAI's, its Responses API's, and Anthropic's names for the same three numbers."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class UsageHolder(msgspec.Struct, gc=False):
    usage: WireUsage | None = None


class Answer(msgspec.Struct):
    usage: WireUsage | None = None
    choices: list[msgspec.Raw] | None = None
    response: UsageHolder | None = None  # Responses API: the event "response.completed"
    message: UsageHolder | None = None  # Anthropic: the event "message_start"


class Captured(msgspec.Struct):
    """What was asked and answered, as far as it is kept; ``…_bytes`` are the real sizes."""

    event_id: str
    ts_ms: int
    project_id: str
    key_id: str
    endpoint: str
    route: str
    status: int
    outcome: str
    request_id: str
    request: str
    request_bytes: int
    response: str
    response_bytes: int


class Row(msgspec.Struct, gc=False):
    event_id: str
    ts_ms: int
    gateway_id: str
    project_id: str = ""
    key_id: str = ""
    endpoint: str = ""
    deployment_id: str = ""
    model: str = ""
    provider: str = ""
    route: str = ""
    stream: bool = False
    status: int = 0
    outcome: str = "ok"
    error_code: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usage_source: str = "none"
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float = 0.0
    queue_ms: float = 0.0
    cost_nanos: int = 0
    retries: int = 0
    wasted_tokens: int = 0
    source: str = "live"
    request_id: str = ""

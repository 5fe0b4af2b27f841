"""Anthropic's Messages API as structures (API reference: "Create a Message"). What is not here is refused: tools that
the provider runs itself, citations, files by reference, containers."""

from typing import Literal

import msgspec

from gateway.core.dialects.conversation import Effort


class CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["ephemeral"] = "ephemeral"
    ttl: Literal["5m", "1h"] = "5m"


class TextBlock(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: CacheControl | None = None
    citations: list[None] | None = None


class Base64Source(msgspec.Struct, tag="base64", forbid_unknown_fields=True):
    media_type: str
    data: str


class UrlSource(msgspec.Struct, tag="url", forbid_unknown_fields=True):
    url: str


class ImageBlock(msgspec.Struct, tag="image", forbid_unknown_fields=True):
    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class DocumentBlock(msgspec.Struct, tag="document", forbid_unknown_fields=True):
    source: Base64Source | UrlSource
    title: str | None = None
    cache_control: CacheControl | None = None


class ThinkingBlock(msgspec.Struct, tag="thinking", forbid_unknown_fields=True):
    thinking: str
    signature: str


class RedactedBlock(msgspec.Struct, tag="redacted_thinking", forbid_unknown_fields=True):
    data: str


class DirectCaller(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["direct"]


class ToolUseBlock(msgspec.Struct, tag="tool_use", forbid_unknown_fields=True):
    id: str
    name: str
    input: msgspec.Raw
    cache_control: CacheControl | None = None
    caller: DirectCaller | None = None
    toolset_name: None = None  # as SDKs echo it


class ToolResultBlock(msgspec.Struct, tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Block = TextBlock | ImageBlock | DocumentBlock | ThinkingBlock | RedactedBlock | ToolUseBlock | ToolResultBlock


class Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    input_schema: msgspec.Raw
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None  # a hint


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    display: Literal["summarized"] | None = None


class OutputFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    effort: Effort | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct, forbid_unknown_fields=True):
    user_id: str | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    max_tokens: int
    messages: list[Message]
    system: str | list[TextBlock] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    # Only with the value that changes nothing, or a hint.
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: CacheControl | None = None

"""OpenAI's chat completions as structures (API reference: Chat, "Create chat completion"), with the fields that vLLM,
DeepSeek and OpenRouter added for reasoning. What is not here is not known, and refused."""

from typing import Literal

import msgspec

from gateway.core.dialects.conversation import Effort
from gateway.core.dialects.document import NULL

Ignored = msgspec.Raw


class TextPart(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    text: str
    prompt_cache_breakpoint: Ignored = NULL


class ImageUrl(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class ImagePart(msgspec.Struct, tag="image_url", forbid_unknown_fields=True):
    image_url: ImageUrl
    prompt_cache_breakpoint: Ignored = NULL


class InputAudio(msgspec.Struct, forbid_unknown_fields=True):
    data: str
    format: str


class AudioPart(msgspec.Struct, tag="input_audio", forbid_unknown_fields=True):
    input_audio: InputAudio


class File(msgspec.Struct, forbid_unknown_fields=True):
    file_data: str
    filename: str | None = None


class FilePart(msgspec.Struct, tag="file", forbid_unknown_fields=True):
    file: File
    prompt_cache_breakpoint: Ignored = NULL


class RefusalPart(msgspec.Struct, tag="refusal", forbid_unknown_fields=True):
    refusal: str


ContentPart = TextPart | ImagePart | AudioPart | FilePart | RefusalPart


class GoogleExtra(msgspec.Struct):
    thought_signature: str | None = None


class Extra(msgspec.Struct):
    google: GoogleExtra | None = None


class Called(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    arguments: str
    parsed_arguments: Ignored = NULL  # what OpenAI's SDK made of them


class CallMade(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    function: Called
    type: Literal["function"] = "function"
    index: int | None = None
    extra_content: Extra | None = None


class ReasoningDetail(msgspec.Struct):
    """OpenRouter's form of reasoning with its signature: ``reasoning.text`` or ``reasoning.encrypted``."""

    type: str
    index: int = 0
    text: str | None = None
    signature: str | None = None
    data: str | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    tool_calls: list[CallMade] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    # What a client echoes of an answer: empty, or OpenAI's SDK's reading of the same text.
    parsed: Ignored = NULL
    annotations: list[None] | None = None
    audio: None = None
    function_call: None = None


class Function(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: Function


class FunctionName(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class NamedChoice(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: FunctionName


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    schema: msgspec.Raw = NULL
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    user: str | None = None
    # Only with the value that changes nothing.
    n: Literal[1] | None = None
    logprobs: bool | None = None
    store: bool | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None
    # Hints that only save time, and labels for the provider's own pages.
    metadata: Ignored = NULL
    safety_identifier: Ignored = NULL
    prompt_cache_key: Ignored = NULL
    prompt_cache_options: Ignored = NULL
    prompt_cache_retention: Ignored = NULL

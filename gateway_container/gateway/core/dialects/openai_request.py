"""OpenAI chat completions: requests."""

from typing import Any

import msgspec

from gateway.core.dialects import openai_shapes as shapes
from gateway.core.dialects.conversation import (
    Conversation,
    Format,
    Media,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    merged,
    refuse,
    refuse_set,
)  # fmt: skip
from gateway.core.dialects.document import data_url, encode, given, of_client, said

_decoder = msgspec.json.Decoder(shapes.Request)
AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


# --- read: what a client says -----------------------------------------------------------------------------------


def read(body: bytes) -> Conversation:
    """Raises Rejected."""
    request = of_client(body, _decoder)
    if request.logprobs:
        refuse("logprobs")
    if request.store:
        refuse("store")
    turns = [_turn(message, f"messages[{number}]") for number, message in enumerate(request.messages)]
    leading = next((n for n, turn in enumerate(turns) if turn.role != "system"), len(turns))
    choice = request.tool_choice
    return Conversation(
        turns=merged(turns[leading:]),
        system=[part for turn in turns[:leading] for part in turn.parts if isinstance(part, Text)],
        stream=bool(request.stream),
        tools=[_tool(tool.function) for tool in request.tools or []],
        tool_choice=ToolChoice("one", choice.function.name) if isinstance(choice, shapes.NamedChoice)
        else ToolChoice(choice) if choice else None,
        parallel_tool_calls=request.parallel_tool_calls,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        temperature=request.temperature, top_p=request.top_p, top_k=request.top_k, seed=request.seed,
        presence_penalty=request.presence_penalty, frequency_penalty=request.frequency_penalty,
        stop=[request.stop] if isinstance(request.stop, str) else request.stop or [],
        response_format=_format(request.response_format),
        reasoning=Reasoning(request.reasoning_effort) if request.reasoning_effort else None,
        user=request.user,
    )  # fmt: skip


def _turn(message: shapes.Message, param: str) -> Turn:
    if message.role == "tool":
        if message.tool_call_id is None:
            refuse(f"{param}.tool_call_id", "A message of role 'tool' needs its 'tool_call_id'.")
        parts = [part for part in _content(message.content, param) if isinstance(part, Text | Media)]
        return Turn("user", [ToolResult(message.tool_call_id, parts)])
    if message.role == "assistant":
        return Turn("assistant", _said(message, param))
    return Turn("user" if message.role == "user" else "system", _content(message.content, param))


def _said(message: shapes.Message, param: str) -> list[Part]:
    parts: list[Part] = list(_thoughts(message))
    parts += _content(message.content, param)
    if message.refusal:
        parts.append(Text(message.refusal))
    for call in message.tool_calls or []:
        google = call.extra_content.google if call.extra_content is not None else None
        signature = google.thought_signature if google is not None else None
        parts.append(ToolCall(call.id, call.function.name, call.function.arguments, signature))
    return parts


def _thoughts(message: shapes.Message) -> list[Thinking]:
    """A client may echo the pieces of a stream: those of one thought are joined, its signature ends it."""
    thoughts: list[Thinking] = []
    for detail in message.reasoning_details or []:
        last = thoughts[-1] if thoughts else None
        if last is None or last.signature or last.redacted or detail.data:
            thoughts.append(Thinking(detail.text or "", detail.signature, detail.data))
        else:
            last.text += detail.text or ""
            last.signature = detail.signature
    plain = message.reasoning_content or message.reasoning
    return thoughts or ([Thinking(plain)] if plain else [])


def _content(content: str | list[shapes.ContentPart] | None, param: str) -> list[Part]:
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    return [_part(part, f"{param}.content[{number}]") for number, part in enumerate(content)]


def _part(part: shapes.ContentPart, param: str) -> Part:
    if isinstance(part, shapes.TextPart):
        return Text(part.text)
    if isinstance(part, shapes.RefusalPart):
        return Text(part.refusal)
    if isinstance(part, shapes.AudioPart):
        kind = AUDIO_TYPES.get(part.input_audio.format) or refuse(f"{param}.input_audio.format")
        return Media("audio", kind, part.input_audio.data)
    if isinstance(part, shapes.FilePart):
        file = data_url(part.file.file_data) or refuse(f"{param}.file.file_data", "A file must be a base64 data URL.")
        return Media("document", *file, name=part.file.filename)
    found = data_url(part.image_url.url)
    if found is None and not part.image_url.url.startswith("https://"):
        refuse(f"{param}.image_url.url", "An image must be a base64 data URL or an https URL.")
    return Media("image", *found) if found is not None else Media("image", url=part.image_url.url)


def _tool(function: shapes.Function) -> Tool:
    return Tool(function.name, function.description, given(function.parameters), function.strict)


def _format(wanted: shapes.ResponseFormat | None) -> Format | None:
    if wanted is None or wanted.type == "text":
        return None
    asked = wanted.json_schema
    if wanted.type == "json_object" or asked is None:
        return Format()
    return Format(given(asked.schema), asked.name, asked.description, asked.strict)


# --- write: what a provider hears -------------------------------------------------------------------------------


def write(conversation: Conversation, model: str, limit_name: str, usage_option: bool) -> bytes:
    """``limit_name``: what the provider calls the token limit. Raises Rejected."""
    refuse_set(conversation, "top_k")
    system = [said(role="system", content=_texts(conversation.system))] if conversation.system else []
    options = {"include_usage": True} if conversation.stream and usage_option else None
    reasoning, limits = conversation.reasoning, said(**{limit_name: conversation.max_tokens})
    return encode(
        model=model,
        messages=system + [message for turn in conversation.turns for message in _messages(turn)],
        stream=conversation.stream or None, stream_options=options, **limits,
        temperature=conversation.temperature, top_p=conversation.top_p, seed=conversation.seed,
        presence_penalty=conversation.presence_penalty, frequency_penalty=conversation.frequency_penalty,
        stop=conversation.stop or None,
        tools=[_function(tool) for tool in conversation.tools] or None,
        tool_choice=_choice(conversation.tool_choice) if conversation.tool_choice else None,
        parallel_tool_calls=conversation.parallel_tool_calls if conversation.tools else None,
        response_format=_response_format(conversation.response_format) if conversation.response_format else None,
        reasoning_effort=_effort(reasoning) if reasoning else None,
        user=conversation.user,
    )  # fmt: skip


def _effort(reasoning: Reasoning) -> str | None:
    """A budget has no name here; this is the nearest effort."""
    if reasoning.effort or reasoning.budget_tokens is None:
        return reasoning.effort
    return "low" if reasoning.budget_tokens <= 4096 else "medium" if reasoning.budget_tokens <= 16384 else "high"


def _messages(turn: Turn) -> list[dict[str, Any]]:
    """Results of tools are messages of their own, before what the user adds."""
    if turn.role == "assistant":
        return [_assistant(turn.parts)]
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    messages = [message for result in results for message in _result(result)]
    rest = [part for part in turn.parts if isinstance(part, Text | Media)]
    return [*messages, said(role=turn.role, content=_parts(rest))] if rest else messages


def _result(result: ToolResult) -> list[dict[str, Any]]:
    """A tool can only say text; its pictures follow as the user's."""
    texts = [part for part in result.parts if isinstance(part, Text)]
    media = [part for part in result.parts if isinstance(part, Media)]
    content = _texts(texts)
    if result.is_error:
        content = f"Error: {content}" if content else "Error"
    answer = said(role="tool", tool_call_id=result.call_id, content=content)
    return [answer, said(role="user", content=_parts(list(media)))] if media else [answer]


def _assistant(parts: list[Part]) -> dict[str, Any]:
    calls = [part for part in parts if isinstance(part, ToolCall)]
    thinking = [part for part in parts if isinstance(part, Thinking)]
    thoughts = "".join(thought.text for thought in thinking)
    signed = any(thought.signature or thought.redacted for thought in thinking)
    text = _texts([part for part in parts if isinstance(part, Text)])
    return {
        "role": "assistant", "content": text or None,
        **said(reasoning_content=thoughts or None, reasoning_details=[_detail(t) for t in thinking] if signed else None,
               tool_calls=[_call(call) for call in calls] or None),
    }  # fmt: skip


def _detail(thought: Thinking) -> dict[str, Any]:
    if thought.redacted is not None:
        return {"type": "reasoning.encrypted", "data": thought.redacted}
    return {"type": "reasoning.text", "text": thought.text, **said(signature=thought.signature)}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _texts(parts: list[Text]) -> str:
    return "\n".join(part.text for part in parts)


def _parts(parts: list[Text | Media]) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [{"type": "text", "text": part.text} if isinstance(part, Text) else _media(part) for part in parts]


def _media(media: Media) -> dict[str, Any]:
    url = media.url or f"data:{media.media_type};base64,{media.data}"
    if media.kind == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    if media.kind == "document" and media.url is None:
        return {"type": "file", "file": {"filename": media.name or "document", "file_data": url}}
    return refuse("messages", "Only documents in base64 can be translated for the provider of this model.")


def _function(tool: Tool) -> dict[str, Any]:
    described = said(name=tool.name, description=tool.description, parameters=tool.schema, strict=tool.strict)
    return {"type": "function", "function": described}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "one" else choice.mode


def _response_format(wanted: Format) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema = said(name=wanted.name or "answer", description=wanted.description, schema=wanted.schema,
                  strict=wanted.strict)  # fmt: skip
    return {"type": "json_schema", "json_schema": schema}

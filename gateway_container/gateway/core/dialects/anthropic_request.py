"""Anthropic messages: requests."""

from typing import Any

import msgspec

from gateway.core.dialects import anthropic_shapes as shapes
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
from gateway.core.dialects.document import encode, object_of, of_client, said

_decoder = msgspec.json.Decoder(shapes.Request)
CHOICES: dict[str, ToolChoice] = {
    "auto": ToolChoice("auto"), "any": ToolChoice("required"), "none": ToolChoice("none"),
}  # fmt: skip


# --- read: what a client says -----------------------------------------------------------------------------------


def read(body: bytes) -> Conversation:
    """Raises Rejected."""
    request = of_client(body, _decoder)
    system = [shapes.TextBlock(request.system)] if isinstance(request.system, str) else request.system or []
    choice, parallel = _chosen(request.tool_choice)
    return Conversation(
        turns=merged([Turn(message.role, _content(message.content)) for message in request.messages]),
        system=[Text(block.text, _ttl(block.cache_control)) for block in system],
        stream=bool(request.stream),
        tools=[
            Tool(tool.name, tool.description, tool.input_schema, tool.strict, _ttl(tool.cache_control))
            for tool in request.tools or []
        ],
        tool_choice=choice, parallel_tool_calls=parallel, max_tokens=request.max_tokens,
        temperature=request.temperature, top_p=request.top_p, top_k=request.top_k,
        stop=request.stop_sequences or [],
        response_format=_format(request.output_config), reasoning=_reasoning(request),
        user=request.metadata.user_id if request.metadata else None,
    )  # fmt: skip


def _chosen(choice: shapes.ToolChoice | None) -> tuple[ToolChoice | None, bool | None]:
    if choice is None:
        return None, None
    parallel = None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use
    if choice.type != "tool":
        return CHOICES[choice.type], parallel
    return ToolChoice("one", choice.name or refuse("tool_choice.name", "'tool_choice' needs a name.")), parallel


def _reasoning(request: shapes.Request) -> Reasoning | None:
    effort = request.output_config.effort if request.output_config else None
    thinking = request.thinking
    if thinking is None:
        return Reasoning(effort) if effort else None
    if thinking.type == "disabled":
        return Reasoning("none")
    return Reasoning(effort, thinking.budget_tokens, thinking.type == "adaptive")


def _format(config: shapes.OutputConfig | None) -> Format | None:
    return Format(config.format.schema, strict=True) if config and config.format else None


def _content(content: str | list[shapes.Block]) -> list[Part]:
    return [Text(content)] if isinstance(content, str) else [_part(block) for block in content]


def _part(block: shapes.Block) -> Part:
    if isinstance(block, shapes.ThinkingBlock):
        return Thinking(block.thinking, block.signature or None)
    if isinstance(block, shapes.RedactedBlock):
        return Thinking(redacted=block.data)
    if isinstance(block, shapes.ToolUseBlock):
        return ToolCall(block.id, block.name, bytes(block.input).decode())
    if isinstance(block, shapes.ToolResultBlock):
        content = [shapes.TextBlock(block.content)] if isinstance(block.content, str) else block.content or []
        parts = [_shown(inner) for inner in content]
        return ToolResult(block.tool_use_id, parts, bool(block.is_error), _ttl(block.cache_control))
    return _shown(block)


def _shown(block: shapes.TextBlock | shapes.ImageBlock | shapes.DocumentBlock) -> Text | Media:
    ttl = _ttl(block.cache_control)
    if isinstance(block, shapes.TextBlock):
        return Text(block.text, ttl)
    source, document = block.source, isinstance(block, shapes.DocumentBlock)
    media = Media("document" if document else "image", name=getattr(block, "title", None), cache_ttl=ttl)
    if isinstance(source, shapes.UrlSource):
        media.url = source.url
    else:
        media.media_type, media.data = source.media_type, source.data
    return media


def _ttl(control: shapes.CacheControl | None) -> str | None:
    return control.ttl if control is not None else None


# --- write: what a provider hears -------------------------------------------------------------------------------


def write(conversation: Conversation, model: str, default_max_tokens: int) -> bytes:
    """``default_max_tokens``: sent when the client names none, as this API wants one. Raises Rejected."""
    limit = conversation.max_tokens
    refuse_set(conversation, "seed", "presence_penalty", "frequency_penalty")
    if conversation.response_format is not None and conversation.response_format.schema is None:
        refuse("response_format", "This model has no plain JSON mode: use 'json_schema' with a schema.")
    return encode(
        model=model, max_tokens=default_max_tokens if limit is None else limit,
        system=[_text(text) for text in conversation.system] or None,
        messages=[{"role": turn.role, "content": blocks} for turn in conversation.turns if (blocks := _blocks(turn))],
        stream=conversation.stream or None,
        temperature=conversation.temperature, top_p=conversation.top_p, top_k=conversation.top_k,
        stop_sequences=conversation.stop or None,
        tools=[_tool(tool) for tool in conversation.tools] or None,
        tool_choice=_choice(conversation),
        thinking=_thinking(conversation.reasoning) if conversation.reasoning else None,
        output_config=_output(conversation),
        metadata={"user_id": conversation.user} if conversation.user else None,
    )  # fmt: skip


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    """Results come first: this API wants them at the beginning of a turn."""
    ordered = sorted(turn.parts, key=lambda part: not isinstance(part, ToolResult))
    return [block for part in ordered if (block := _block(part)) is not None]


def _block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, Thinking):
        return _thought(part)
    if isinstance(part, ToolCall):
        arguments = object_of(part.arguments) or refuse(
            "messages", f"The arguments of the tool call {part.id} are not a JSON object."
        )
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
    if isinstance(part, ToolResult):
        content = [_media(inner) if isinstance(inner, Media) else _text(inner) for inner in part.parts]
        return {
            "type": "tool_result", "tool_use_id": part.call_id, "content": content,
            **said(is_error=part.is_error or None, cache_control=_cached(part.cache_ttl)),
        }  # fmt: skip
    return _media(part) if isinstance(part, Media) else _text(part)


def _thought(thought: Thinking) -> dict[str, Any] | None:
    """A thought without its signature is of no use to the provider, which would refuse it."""
    if thought.redacted is not None:
        return {"type": "redacted_thinking", "data": thought.redacted}
    if thought.signature is None:
        return None
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _text(text: Text) -> dict[str, Any]:
    return {"type": "text", "text": text.text, **said(cache_control=_cached(text.cache_ttl))}


def _media(media: Media) -> dict[str, Any]:
    if media.kind == "audio":
        refuse("messages", "Recordings cannot be translated for the provider of this model.")
    source = {"type": "url", "url": media.url} if media.url else {
        "type": "base64", "media_type": media.media_type, "data": media.data,
    }  # fmt: skip
    title = media.name if media.kind == "document" else None
    return {"type": media.kind, "source": source, **said(title=title, cache_control=_cached(media.cache_ttl))}


def _cached(ttl: str | None) -> dict[str, str] | None:
    if ttl is None:
        return None
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def _tool(tool: Tool) -> dict[str, Any]:
    schema = tool.schema if tool.schema is not None else {"type": "object"}
    return said(name=tool.name, description=tool.description, input_schema=schema, strict=tool.strict or None,
                cache_control=_cached(tool.cache_ttl))  # fmt: skip


def _choice(conversation: Conversation) -> dict[str, Any] | None:
    choice, parallel = conversation.tool_choice, conversation.parallel_tool_calls
    if not conversation.tools or (choice is None and parallel is not False):
        return None
    mode = choice.mode if choice is not None else "auto"
    kind = {"auto": "auto", "none": "none", "required": "any", "one": "tool"}[mode]
    single = True if parallel is False and mode != "none" else None
    return said(type=kind, name=choice.name if choice and mode == "one" else None, disable_parallel_tool_use=single)


def _thinking(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.effort == "none":
        return {"type": "disabled"}
    if reasoning.budget_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.budget_tokens}
    return {"type": "adaptive"}


def _output(conversation: Conversation) -> dict[str, Any] | None:
    effort = conversation.reasoning.effort if conversation.reasoning else None
    effort = {"none": None, "minimal": "low"}.get(effort, effort) if effort else None
    wanted = conversation.response_format
    schema = {"type": "json_schema", "schema": wanted.schema} if wanted is not None else None
    return said(effort=effort, format=schema) or None

"""Amazon Bedrock: requests of Converse and ConverseStream (Bedrock API reference, operations of bedrock-runtime).

What Converse has no field for but Claude models take goes into ``additionalModelRequestFields``: top_k and thinking.
"""

import re
from typing import Any

from gateway.core.dialects.conversation import (
    Conversation,
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
    refuse,
    refuse_set,
)
from gateway.core.dialects.document import encode, object_of, said

IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
DOCUMENTS = {
    "application/pdf": "pdf", "text/csv": "csv", "text/html": "html", "text/plain": "txt", "text/markdown": "md",
    "application/msword": "doc", "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}  # fmt: skip
UNNAMEABLE = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")
Block = dict[str, Any]


def write(conversation: Conversation) -> bytes:
    """Raises Rejected."""
    refuse_set(conversation, "seed", "presence_penalty", "frequency_penalty")
    limits = said(
        maxTokens=conversation.max_tokens, temperature=conversation.temperature, topP=conversation.top_p,
        stopSequences=conversation.stop or None,
    )  # fmt: skip
    return encode(
        messages=[{"role": turn.role, "content": blocks} for turn in conversation.turns if (blocks := _blocks(turn))],
        system=[block for text in conversation.system for block in _cached(text, {"text": text.text})] or None,
        inferenceConfig=limits or None,
        toolConfig=_tools(conversation),
        additionalModelRequestFields=_additional(conversation) or None,
        outputConfig=_output(conversation) or None,
    )


def _blocks(turn: Turn) -> list[Block]:
    return [block for part in turn.parts for block in _block(part)]


def _block(part: Part) -> list[Block]:
    if isinstance(part, Thinking):
        return _thought(part)
    if isinstance(part, ToolCall):
        arguments = object_of(part.arguments) or refuse(
            "messages", f"The arguments of the tool call {part.id} are not a JSON object."
        )
        return [{"toolUse": {"toolUseId": part.id, "name": part.name, "input": arguments}}]
    if isinstance(part, ToolResult):
        content = [_media(inner) if isinstance(inner, Media) else {"text": inner.text} for inner in part.parts]
        result = {"toolUseId": part.call_id, "content": content, **said(status="error" if part.is_error else None)}
        return _cached(part, {"toolResult": result})
    return _cached(part, _media(part) if isinstance(part, Media) else {"text": part.text})


def _cached(part: Text | Media | ToolResult | Tool, block: Block) -> list[Block]:
    if part.cache_ttl is None:
        return [block]
    return [block, {"cachePoint": said(type="default", ttl="1h" if part.cache_ttl == "1h" else None)}]


def _thought(thought: Thinking) -> list[Block]:
    if thought.redacted is not None:
        return [{"reasoningContent": {"redactedContent": thought.redacted}}]
    if thought.signature is None:
        return []
    return [{"reasoningContent": {"reasoningText": {"text": thought.text, "signature": thought.signature}}}]


def _media(media: Media) -> Block:
    known = {"image": IMAGES, "document": DOCUMENTS}.get(media.kind, {})
    kind = known.get(media.media_type or "")
    if media.data is None:
        refuse("messages", "The provider of this model does not fetch URLs: send the file as base64.")
    if kind is None:
        refuse("messages", f"The provider of this model does not take files of type {media.media_type}.")
    block: Block = {"format": kind, "source": {"bytes": media.data}}
    if media.kind == "document":
        block["name"] = UNNAMEABLE.sub("-", media.name or "document")[:200]
    return {media.kind: block}


def _tools(conversation: Conversation) -> Block | None:
    choice = conversation.tool_choice
    if not conversation.tools:
        return None
    if conversation.parallel_tool_calls is False:
        refuse("parallel_tool_calls")
    if choice is not None and choice.mode == "none":
        used = any(isinstance(part, ToolCall | ToolResult) for turn in conversation.turns for part in turn.parts)
        return refuse("tool_choice", "This model cannot be kept from calling tools it has used.") if used else None
    tools = [block for tool in conversation.tools for block in _cached(tool, _tool(tool))]
    return said(tools=tools, toolChoice=_choice(choice) if choice is not None else None)


def _tool(tool: Tool) -> Block:
    schema = tool.schema if tool.schema is not None else {"type": "object"}
    specification = said(name=tool.name, description=tool.description or None, inputSchema={"json": schema},
                         strict=tool.strict or None)  # fmt: skip
    return {"toolSpec": specification}


def _choice(choice: ToolChoice) -> Block:
    if choice.mode == "one":
        return {"tool": {"name": choice.name}}
    return {"any" if choice.mode == "required" else "auto": {}}


def _additional(conversation: Conversation) -> Block:
    thinking = _thinking(conversation.reasoning) if conversation.reasoning is not None else None
    return said(top_k=conversation.top_k, thinking=thinking)


def _thinking(reasoning: Reasoning) -> Block | None:
    if reasoning.effort == "none":
        return {"type": "disabled"}
    if reasoning.budget_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.budget_tokens}
    return {"type": "adaptive"} if reasoning.adaptive else None


def _output(conversation: Conversation) -> Block:
    effort = conversation.reasoning.effort if conversation.reasoning is not None else None
    wanted = conversation.response_format
    text_format = None
    if wanted is not None:
        if wanted.schema is None:
            refuse("response_format", "This model has no plain JSON mode: use 'json_schema' with a schema.")
        schema = said(schema=bytes(wanted.schema).decode(), name=wanted.name, description=wanted.description)
        text_format = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    return said(effort=effort if effort != "none" else None, textFormat=text_format)

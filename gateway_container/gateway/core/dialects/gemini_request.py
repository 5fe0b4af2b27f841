"""Google Gemini: requests of generateContent and streamGenerateContent (Gemini API reference; Vertex AI alike)."""

from typing import Any

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
    ToolResult,
    Turn,
    refuse,
)
from gateway.core.dialects.document import encode, object_of, said

LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "one": "ANY"}
Block = dict[str, Any]


def write(conversation: Conversation) -> bytes:
    """Raises Rejected."""
    system = {"parts": [{"text": text.text} for text in conversation.system]} if conversation.system else None
    names = {part.id: part.name for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall)}
    tools = [{"functionDeclarations": [_tool(tool) for tool in conversation.tools]}] if conversation.tools else None
    return encode(
        systemInstruction=system,
        contents=[content for turn in conversation.turns if (content := _content(turn, names))["parts"]],
        tools=tools,
        toolConfig=_tool_config(conversation) if conversation.tools else None,
        generationConfig=_generation(conversation) or None,
    )


def _content(turn: Turn, names: dict[str, str]) -> Block:
    if turn.role == "system":
        refuse("messages", "This model takes system messages only before all others.")
    if turn.role == "user":
        return {"role": "user", "parts": [_given(part, names) for part in turn.parts]}
    return {"role": "model", "parts": _made(turn.parts)}


def _given(part: Part, names: dict[str, str]) -> Block:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, ToolResult):
        return {"functionResponse": _result(part, names)}
    return _media(part) if isinstance(part, Media) else refuse("messages")


def _result(result: ToolResult, names: dict[str, str]) -> Block:
    name = names.get(result.call_id) or refuse("messages", f"There is no tool call {result.call_id} to this result.")
    text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
    media = [_media(part) for part in result.parts if isinstance(part, Media)]
    return {"name": name, "response": {"error" if result.is_error else "output": text}, **said(parts=media or None)}


def _made(parts: list[Part]) -> list[Block]:
    """What the model said. The signature of a thought belongs to the call that follows it, if one does."""
    made: list[Block] = []
    signature: str | None = None
    for part in parts:
        if isinstance(part, Thinking):
            signature = part.signature
        elif isinstance(part, ToolCall):
            made.append(_call(part, part.signature or signature))
            signature = None
        elif isinstance(part, Text):
            made.append({"text": part.text})
        else:
            refuse("messages", "Only text and tool calls can be put into this model's mouth.")
    return made


def _call(call: ToolCall, signature: str | None) -> Block:
    arguments = object_of(call.arguments) or refuse(
        "messages", f"The arguments of the tool call {call.id} are not a JSON object."
    )
    return {"functionCall": {"name": call.name, "args": arguments}, **said(thoughtSignature=signature)}


def _media(media: Media) -> Block:
    if media.data is None:
        refuse("messages", "The provider of this model does not fetch URLs: send the file as base64.")
    return {"inlineData": {"mimeType": media.media_type, "data": media.data}}


def _tool(tool: Tool) -> Block:
    return said(name=tool.name, description=tool.description, parametersJsonSchema=tool.schema)


def _tool_config(conversation: Conversation) -> Block | None:
    if conversation.parallel_tool_calls is False:
        refuse("parallel_tool_calls")
    choice = conversation.tool_choice
    mode = MODES[choice.mode] if choice is not None else "AUTO"
    if mode == "AUTO" and any(tool.strict for tool in conversation.tools):
        mode = "VALIDATED"
    if choice is None and mode == "AUTO":
        return None
    names = [choice.name] if choice is not None and choice.mode == "one" else None
    return {"functionCallingConfig": said(mode=mode, allowedFunctionNames=names)}


def _generation(conversation: Conversation) -> Block:
    wanted = conversation.response_format
    return said(
        maxOutputTokens=conversation.max_tokens, temperature=conversation.temperature, topP=conversation.top_p,
        topK=conversation.top_k, seed=conversation.seed, presencePenalty=conversation.presence_penalty,
        frequencyPenalty=conversation.frequency_penalty, stopSequences=conversation.stop or None,
        responseMimeType="application/json" if wanted is not None else None,
        responseJsonSchema=wanted.schema if isinstance(wanted, Format) else None,
        thinkingConfig=_thinking(conversation.reasoning) if conversation.reasoning is not None else None,
    )  # fmt: skip


def _thinking(reasoning: Reasoning) -> Block:
    if reasoning.effort == "none":
        return {"thinkingBudget": 0}
    level = None
    if reasoning.effort is not None:
        level = LEVELS.get(reasoning.effort) or refuse(
            "reasoning_effort", "This model thinks at most with effort 'high'."
        )
    return said(includeThoughts=True, thinkingLevel=level, thinkingBudget=reasoning.budget_tokens)

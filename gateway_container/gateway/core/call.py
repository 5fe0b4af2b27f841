"""What a request body asks for, and the body that goes to the deployment: only top-level fields are ever touched."""

from typing import Final

import msgspec

from gateway.core import shapes
from gateway.core.problems import Rejected
from gateway.core.shapes import ChatCall, Item, OddCall, StreamOptions, TextCall, Tool, WireCall
from gateway.core.snapshot import Deployment

# Every path that costs tokens; all of them are POST and carry "model".
INFERENCE_PATHS: Final = frozenset({
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank", "/v1/messages",
    "/v1/moderations", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations",
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations",
})  # fmt: skip
# Paths whose streams carry usage only when stream_options.include_usage asks for it.
CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
USAGE_OPTION_PATHS: Final = frozenset({CHAT, "/v1/completions"})


ESCAPE: Final = b"\\u"
QUOTE: Final = ord('"')
BRACKET: Final = ord("[")
CLIENT_TOOLS: Final = frozenset({None, "function", "custom"})
LIMIT_NAMES: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
NULL: Final = shapes.NULL  # compiled code looks names of modules that are not compiled up each time
_values: Final = msgspec.structs.astuple
_decode: Final = msgspec.json.Decoder(OddCall).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_items: Final = msgspec.json.Decoder(list[Item]).decode
_decode_tools: Final = msgspec.json.Decoder(list[Tool]).decode
_decode_chat: Final = msgspec.json.Decoder(ChatCall).decode
_decode_text: Final = msgspec.json.Decoder(TextCall).decode


class Call:
    """The few fields of a request body that policy needs; everything else passes through unread."""

    __slots__ = (
        "best_of", "conversation", "data_sources", "in_form", "input", "max_completion_tokens", "max_output_tokens",
        "max_tokens", "mcp_servers", "model", "n", "previous_response_id", "prompt", "recordings", "stream",
        "stream_options", "text", "tools", "web_search_options",
    )  # fmt: skip

    def __init__(self, wire: WireCall, text: bool = False, recordings: int = 0, in_form: bool = False) -> None:
        self.text = text  # the messages are strings only, or there are none
        self.recordings = recordings  # answers that were spoken, which a chat goes on with: the body has their ids only
        self.in_form = in_form  # of which only the model and whether to stream are read
        self.model: str
        self.stream: bool | None
        self.max_tokens: int | None
        self.max_completion_tokens: int | None
        self.max_output_tokens: int | None
        self.n: int | None
        self.best_of: int | None
        self.stream_options: StreamOptions | None
        # All at once: compiled code reads attributes of structs slowly.
        (
            self.model, self.stream, self.max_tokens, self.max_completion_tokens, self.max_output_tokens,
            self.n, self.best_of, self.stream_options, self.input, self.prompt,
            self.tools, self.previous_response_id, self.conversation, self.web_search_options,
            self.mcp_servers, self.data_sources, _,
        ) = _values(wire)  # fmt: skip


def plain_text(call: Call) -> bool:
    """Whether the prompt is strings only, so that nothing is attached. False also where that is not known."""
    return call.text and _absent_or_text(call.input) and _absent_or_text(call.prompt)


def _absent_or_text(value: msgspec.Raw) -> bool:
    return value is NULL or memoryview(value)[0] == QUOTE


def continues(call: Call) -> bool:
    """Whether a call of the Responses API goes on with something that the provider keeps and the body does not hold."""
    if _given(call.previous_response_id) or _given(call.conversation) or _given(call.prompt):
        return True
    items = call.input
    return items is not NULL and memoryview(items)[0] == BRACKET and _refers(items)


def fetches(call: Call) -> bool:
    """Whether the provider itself looks things up for the call: what it finds is input that the body does not hold."""
    if call.tools is not NULL and _served(call.tools):
        return True
    return _given(call.web_search_options) or _given(call.mcp_servers) or _given(call.data_sources)


def _served(given: msgspec.Raw) -> bool:
    """Whether a tool is run by the provider, not by the client (whose own have no type on ``/v1/messages``)."""
    try:
        tools = _decode_tools(given) if _given(given) else []
    except msgspec.MsgspecError:  # of a shape that is not known
        return True
    return any([tool.type not in CLIENT_TOOLS for tool in tools])


def _given(value: msgspec.Raw) -> bool:
    return value is not NULL and bytes(value) != b"null"


def _refers(given: msgspec.Raw) -> bool:
    try:
        items = _decode_items(given)
    except msgspec.MsgspecError:  # of a shape that is not known
        return True
    return any([i.type == "item_reference" or (i.type is None and i.content is NULL) for i in items])


def unescaped(body: bytes) -> bytes:
    """The same JSON with every name written in the one usual way. Raises Rejected."""
    if body.find(ESCAPE) < 0:
        return body
    try:
        return msgspec.json.encode(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected("invalid_request", f"The body is not a valid request: {error}.") from None


def prompts(call: Call) -> int:
    """How many prompts a completion has: a list of numbers is one, of tokens."""
    if memoryview(call.prompt)[0] != BRACKET:
        return 1
    given = _decode_list(call.prompt)
    return len(given) if given and memoryview(given[0])[0] in (QUOTE, BRACKET) else 1


def parse(body: bytes) -> Call:
    """Read a JSON body. Raises Rejected for anything that is not a JSON object with a model."""
    try:
        if not body.isascii():
            body.decode()  # what is skipped is not looked at: bytes that are no text would be met only on the way out
        return _read(body)
    except UnicodeDecodeError:
        message = "The body is no UTF-8 text. Send the JSON as it is: not compressed, in no other encoding."
        raise Rejected("invalid_request", message) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Rejected("invalid_request", f"The body is not a valid request: {error}.") from None


def _read(body: bytes) -> Call:
    """Most calls are text only; messages of a shape that is not known are the deployment's to refuse."""
    try:
        return Call(_decode_text(body), text=True)
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        chat = _decode_chat(body)
    except (msgspec.MsgspecError, RecursionError):
        return Call(_decode(body))
    return Call(chat, recordings=sum([message.audio is not None for message in chat.messages]))


def asks_usage(call: Call) -> bool:
    """Whether the client itself asked for the usage event at the end of the stream."""
    return call.stream_options is not None and bool(call.stream_options.include_usage)


def rewrite(
    body: bytes, model: msgspec.Raw | None, add_usage: bool, max_tokens: int | None, limit_name: str = "max_tokens"
) -> bytes:
    """The same JSON object with another model, the usage option or a token limit spliced in."""
    if model is None and not add_usage and max_tokens is None:
        return body
    fields = _decode_fields(body)
    if model is not None:
        fields["model"] = model
    if add_usage:
        fields["stream_options"] = _with_usage(fields.get("stream_options"))
    if max_tokens is not None:
        for name in LIMIT_NAMES:  # those that were there limit nothing, but an engine may prefer them
            fields.pop(name, None)
        fields[limit_name] = msgspec.Raw(b"%d" % max_tokens)
    return msgspec.json.encode(fields)


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    known = _decode_fields(options) if options is not None and bytes(options) != b"null" else {}
    known["include_usage"] = msgspec.Raw(b"true")
    return msgspec.Raw(msgspec.json.encode(known))


def upstream_model(call: Call, adapters: dict[str, str], deployment: Deployment) -> msgspec.Raw | None:
    """The model name to splice in, or None when the client's own is right."""
    adapter = adapters.get(call.model)
    if adapter is not None:
        return None if adapter == call.model else msgspec.Raw(msgspec.json.encode(adapter))
    return None if call.model == deployment.model else deployment.model_json


def limit_name(path: str, deployment: Deployment) -> str:
    """What a deployment calls the output limit on this path."""
    if path == CHAT:
        return deployment.limit_name
    return "max_output_tokens" if path == RESPONSES else "max_tokens"

"""Where the texts are in requests, answers and stream events: by path, as the providers' API references describe them.

In a pattern ``*`` is every element of a list and ``**`` every string below. What is not named here is no text of the
user or the model (ids, names, pictures, token ids) and passes unchecked.
"""

from typing import Any

Lane = tuple[str | int, ...]
Tree = dict[str, Any]  # names of fields, with what is below them; HERE below a name: the field itself
Place = tuple[Any, Any, Lane]  # holder, key, lane
HERE, EACH, ALL = SPECIAL = ("", "*", "**")

_TOOL_CALLS = ("tool_calls.*.function.arguments", "function_call.arguments")
_PARTS = ("content", "content.*.text", "content.*.refusal", "reasoning_content", "reasoning", "refusal", *_TOOL_CALLS)
_ITEM = ("content", "content.*.text", "content.*.refusal", "summary.*.text", "arguments", "output", "output.*.text")
_BLOCK = ("text", "thinking", "input.**", "content", "content.*.text", "title", "context")


def _paths(*patterns: str) -> Tree:
    tree: Tree = {}
    for pattern in patterns:
        node = tree
        for part in pattern.split("."):
            node = node.setdefault(part, {})
        node[HERE] = {}
    return tree


def _under(prefix: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{pattern}" for pattern in patterns)


REQUEST = {
    "/v1/chat/completions": _paths(*_under("messages.*", _PARTS), "prediction.content", "prediction.content.*.text"),
    "/v1/completions": _paths("prompt", "prompt.*", "suffix"),
    "/v1/embeddings": _paths("input", "input.*", *_under("messages.*", _PARTS)),
    "/v1/responses": _paths("instructions", "input", *_under("input.*", _ITEM)),
    "/v1/messages": _paths("system", "system.*.text", "messages.*.content", *_under("messages.*.content.*", _BLOCK)),
    "/v1/rerank": _paths("query", "documents.*", "documents.*.text"),
    "/v1/moderations": _paths("input", "input.*", "input.*.text"),
    "/v1/audio/speech": _paths("input", "instructions"),
    "/v1/images/generations": _paths("prompt"),
}
ANSWER = {
    "/v1/chat/completions": _paths(*_under("choices.*.message", _PARTS)),
    "/v1/completions": _paths("choices.*.text"),
    "/v1/responses": _paths("output_text", *_under("output.*", _ITEM)),
    "/v1/messages": _paths(*_under("content.*", _BLOCK)),
    "/v1/audio/transcriptions": _paths("text", "segments.*.text", "words.*.word"),
    "/v1/audio/translations": _paths("text", "segments.*.text"),
}
# Texts that come in pieces: what belongs together has the same lane.
STREAM = {
    "/v1/chat/completions": _paths(*_under("choices.*.delta", _PARTS)),
    "/v1/completions": _paths("choices.*.text"),
    "/v1/responses": _paths("delta"),
    "/v1/messages": _paths("delta.text", "delta.thinking", "delta.partial_json"),
    "/v1/audio/transcriptions": _paths("delta"),
}
# Events that repeat a whole text at its end.
REPEATED = {
    "/v1/responses": _paths(
        "text", "refusal", "arguments", "part.text", "part.refusal", *_under("item", _ITEM),
        *_under("response.output.*", _ITEM),
    ),
    "/v1/audio/transcriptions": _paths("text"),
}  # fmt: skip
# The answer's text once more, as tokens.
SPELT_OUT = _paths(
    "choices.*.logprobs", "choices.*.token_ids", "logprobs", "part.logprobs", "item.content.*.logprobs",
    "output.*.content.*.logprobs", "response.output.*.content.*.logprobs",
)  # fmt: skip
# Prompts that are not texts, and could say anything.
TOKEN_IDS = {"/v1/completions": _paths("prompt"), "/v1/embeddings": _paths("input")}
INDEXES = ("index", "output_index", "content_index", "summary_index")


class Text:
    """A text inside a decoded JSON document."""

    __slots__ = ("_holder", "_key", "changed", "lane", "value")

    def __init__(self, holder: Any, key: str | int, lane: Lane) -> None:
        self._holder = holder
        self._key = key
        self.lane = lane
        self.value: str = holder[key]
        self.changed = False

    def put(self, value: str) -> bool:
        """Replace it. False when it is the same."""
        if value == self.value:
            return False
        self.value = self._holder[self._key] = value
        self.changed = True
        return True


def texts(document: Any, tree: Tree) -> list[Text]:
    """Every text in the document that the tree names. Raises RecursionError."""
    kind = document.get("type") if isinstance(document, dict) else None
    base = (*indexes(document), kind) if isinstance(kind, str) else indexes(document)
    return [Text(*place) for place in _places(document, tree, base) if isinstance(place[0][place[1]], str)]


def indexes(document: Any) -> Lane:
    """Which part of an answer an event belongs to."""
    if not isinstance(document, dict):
        return ()
    return tuple([document[name] for name in INDEXES if isinstance(document.get(name), int)])


def _places(document: Any, tree: Tree, lane: Lane) -> list[Place]:
    found: list[Place] = []
    _walk(document, tree, lane, found)
    return found


def _walk(node: Any, tree: Tree, lane: Lane, found: list[Place]) -> None:
    if ALL in tree:
        _everything(node, lane, found)
    elif isinstance(node, dict):
        for name, below in tree.items():
            if name in node and name not in SPECIAL:
                _visit(node, name, name, below, lane, found)
    elif isinstance(node, list) and EACH in tree:
        for position, element in enumerate(node):
            _visit(node, position, _index(element, position), tree[EACH], lane, found)


def _visit(holder: Any, key: str | int, step: str | int, below: Tree, lane: Lane, found: list[Place]) -> None:
    here = (*lane, step)
    if HERE in below:
        found.append((holder, key, here))
    if not isinstance(holder[key], str):
        _walk(holder[key], below, here, found)


def _index(element: Any, position: int) -> int:
    """Elements of a list go by the index they name, if they do."""
    named = element.get("index") if isinstance(element, dict) else None
    return named if isinstance(named, int) else position


def _everything(node: Any, lane: Lane, found: list[Place]) -> None:
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        if isinstance(node[key], str):
            found.append((node, key, (*lane, key)))
        else:
            _everything(node[key], (*lane, key), found)


def hide_tokens(document: Any) -> bool:
    """Empty what spells the answer out as tokens. True when there was any."""
    filled = [(holder, key) for holder, key, _ in _places(document, SPELT_OUT, ()) if holder[key]]
    for holder, key in filled:
        holder[key] = [] if isinstance(holder[key], list) else None
    return bool(filled)


def has_token_ids(document: Any, path: str) -> bool:
    """Whether the prompt, or one of several, is given as numbers."""
    return any(_is_ids(holder[key]) for holder, key, _ in _places(document, TOKEN_IDS.get(path, {}), ()))


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, int) or _is_ids(one) for one in value)

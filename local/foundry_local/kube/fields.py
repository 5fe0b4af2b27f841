"""Field ownership: which fields an object has, as sets of paths, and their `FieldsV1` notation.

A path is a tuple of elements: `f:name` a field, `k:{...}` an item of a keyed list, `v:value` an item of a set.
The rules are those of structured-merge-diff: a leaf, an atomic value and every keyed item is a member.
"""

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from foundry_local.kube.schema import MergeRules, item_key
from foundry_local.kube.types import Obj, Path

FieldPath: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = set[FieldPath]

# Identity and bookkeeping: never owned by anybody.
_UNOWNED = frozenset({
    ("f:apiVersion",), ("f:kind",), ("f:metadata",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace"),
    ("f:metadata", "f:creationTimestamp"), ("f:metadata", "f:selfLink"), ("f:metadata", "f:uid"),
    ("f:metadata", "f:generation"), ("f:metadata", "f:resourceVersion"), ("f:metadata", "f:managedFields"),
    ("f:metadata", "f:generateName"), ("f:metadata", "f:deletionTimestamp"),
})  # fmt: skip


def _key_element(identity: tuple[tuple[str, object], ...]) -> str:
    return "k:" + json.dumps(dict(sorted(identity)), separators=(",", ":"))


def _value_element(value: object) -> str:
    return "v:" + json.dumps(value, separators=(",", ":"))


def walk(value: Any, rules: MergeRules, names: Path = (), at: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Every ownable path of a value with what is there."""
    if isinstance(value, dict) and value and not (names and rules.is_atomic_map(names)):
        for key, item in value.items():
            yield from walk(item, rules, (*names, key), (*at, f"f:{key}"))
    elif isinstance(value, list) and names and (keys := rules.list_keys(names)):
        yield from _walk_keyed(value, keys, rules, names, at)
    elif isinstance(value, list) and names and rules.is_set(names):
        for item in value:
            yield (*at, _value_element(item)), item
    else:
        yield at, value


def _walk_keyed(
    items: list[Any], keys: tuple[str, ...], rules: MergeRules, names: Path, at: FieldPath
) -> Iterator[tuple[FieldPath, Any]]:
    if not items:
        yield at, items
    for item in items:
        identity = item_key(item, keys) if isinstance(item, dict) else None
        if identity is None:
            continue
        element = (*at, _key_element(identity))
        yield element, _Present
        yield from walk(item, rules, names, element)


class _Present:
    """Stands for "this keyed item exists", which all its owners share without conflict."""


def values_by_path(obj: Obj, rules: MergeRules) -> dict[FieldPath, Any]:
    """What each owner could own in `obj`: path to value."""
    return {path: value for path, value in walk(obj, rules) if path not in _UNOWNED and path}


def to_fields_v1(paths: FieldSet) -> Obj:
    """The nested `FieldsV1` notation; a path that is also a prefix of others is marked with `.`."""
    tree: Obj = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    _strip_leaf_marks(tree)
    return tree


def _strip_leaf_marks(node: Obj) -> None:
    for element, child in node.items():
        if element == ".":
            continue
        if set(child) == {"."}:
            del child["."]
        else:
            _strip_leaf_marks(child)


def from_fields_v1(tree: Obj, at: FieldPath = ()) -> FieldSet:
    """The set that `to_fields_v1` wrote."""
    if not tree and at:
        return {at}
    found: FieldSet = set()
    for element, child in tree.items():
        if element == ".":
            found.add(at)
        else:
            found |= from_fields_v1(child, (*at, element))
    return found


def describe(path: FieldPath) -> str:
    """A path as conflict messages spell it: `.spec.containers[name="engine"].image`."""
    parts = []
    for element in path:
        kind, text = element[0], element[2:]
        if kind == "f":
            parts.append(f".{text}")
        elif kind == "k":
            pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(text).items())
            parts.append(f"[{pairs}]")
        else:
            parts.append(f"[={text}]")
    return "".join(parts)


def remove_path(obj: Any, path: FieldPath, rules: MergeRules, names: Path = ()) -> None:
    """Delete what is at `path` from `obj`, in place; a path that is not there is no error."""
    element, rest = path[0], path[1:]
    if element.startswith("f:"):
        _remove_field(obj, element[2:], rest, rules, names)
    elif isinstance(obj, list) and element.startswith("k:"):
        _remove_item(obj, element, rest, rules, names)
    elif isinstance(obj, list):
        value = json.loads(element[2:])
        obj[:] = [item for item in obj if item != value]


def _remove_field(obj: Any, name: str, rest: FieldPath, rules: MergeRules, names: Path) -> None:
    if not isinstance(obj, dict) or name not in obj:
        return
    if not rest:
        del obj[name]
        return
    remove_path(obj[name], rest, rules, (*names, name))
    if obj[name] in ({}, []):
        del obj[name]


def _remove_item(items: list[Any], element: str, rest: FieldPath, rules: MergeRules, names: Path) -> None:
    keys = rules.list_keys(names)
    for position, item in enumerate(items):
        identity = item_key(item, keys) if isinstance(item, dict) and keys else None
        if identity is None or _key_element(identity) != element:
            continue
        if rest:
            remove_path(item, rest, rules, names)
        else:
            del items[position]
        return

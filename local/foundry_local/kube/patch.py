"""JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and the Kubernetes strategic merge patch."""

from typing import Any

from foundry_local.kube.errors import ApiError, bad_request
from foundry_local.kube.schema import MergeRules, item_key
from foundry_local.kube.types import Obj, Path, clone


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, lists replace."""
    if not isinstance(patch, dict):
        return clone(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Obj, operations: Any) -> Obj:
    """RFC 6902, all or nothing.

    Raises:
        ApiError: 400 for a malformed document, 422 where a path or a test fails.
    """
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise bad_request("a JSON patch is a list of operations")
    result: Any = clone(target)
    for operation in operations:
        result = _operate(result, operation)
    if not isinstance(result, dict):
        raise bad_request("the patched document is not an object")
    return result


def _operate(document: Any, operation: Obj) -> Any:
    kind, path = operation.get("op"), _pointer(operation.get("path"))
    if kind == "test":
        if _resolve(document, path) != operation.get("value"):
            raise _unprocessable(f"testing path {operation['path']} failed")
        return document
    if kind in ("add", "replace"):
        if "value" not in operation:
            raise bad_request(f"JSON patch operation {kind!r} needs a value")
        return _put(document, path, clone(operation["value"]), insert=kind == "add")
    if kind == "remove":
        return _drop(document, path)
    if kind in ("move", "copy"):
        source = _pointer(operation.get("from"))
        value = clone(_resolve(document, source))
        return _put(_drop(document, source) if kind == "move" else document, path, value, insert=True)
    raise bad_request(f"unexpected JSON patch operation: {kind!r}")


def _unprocessable(message: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {message}")


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise bad_request(f"invalid JSON pointer: {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _step(value: Any, part: str, *, end: bool = False) -> Any:
    """The dict key or list index that a pointer part means in `value`."""
    if isinstance(value, dict):
        return part
    if isinstance(value, list):
        if part == "-" and end:
            return len(value)
        if part.isdigit() and int(part) < len(value) + end:
            return int(part)
    raise _unprocessable(f"path part {part!r} does not exist")


def _resolve(document: Any, path: list[str]) -> Any:
    for part in path:
        index = _step(document, part)
        if isinstance(document, dict) and index not in document:
            raise _unprocessable(f"path part {part!r} does not exist")
        document = document[index]
    return document


def _put(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent = _resolve(document, path[:-1])
    index = _step(parent, path[-1], end=insert)
    if isinstance(parent, list) and insert:
        parent.insert(index, value)
    elif insert or isinstance(parent, list) or index in parent:
        parent[index] = value
    else:
        raise _unprocessable(f"replace of the missing path part {path[-1]!r}")
    return document


def _drop(document: Any, path: list[str]) -> Any:
    if not path:
        raise _unprocessable("cannot remove the whole document")
    _resolve(document, path)
    parent = _resolve(document, path[:-1])
    del parent[_step(parent, path[-1])]
    return document


def strategic_merge(target: Obj, patch: Obj, rules: MergeRules) -> Obj:
    """Merge with lists merged by key; knows `$patch: delete|replace|merge` and `$deleteFromPrimitiveList/x`.

    Raises:
        ApiError: 400, the kind is a custom resource's (the real server answers 415 there, see `api.py`) or
            a list item lacks its key.
    """
    return _merge_map(target, patch, rules, ())


def _merge_map(target: Any, patch: Obj, rules: MergeRules, path: Path) -> Obj:
    directive = patch.get("$patch")
    if directive == "replace":
        return clone({key: value for key, value in patch.items() if key != "$patch"})  # type: ignore[no-any-return]
    merged: Obj = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key == "$patch" or key.startswith("$setElementOrder/") or key.startswith("$retainKeys"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            merged[name] = [item for item in merged.get(name, []) if item not in value]
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, rules, (*path, key))
    return merged


def _merge_value(target: Any, value: Any, rules: MergeRules, path: Path) -> Any:
    if isinstance(value, dict):
        if value.get("$patch") == "delete":
            return {}
        return _merge_map(target, value, rules, path)
    if isinstance(value, list):
        return _merge_list(target if isinstance(target, list) else [], value, rules, path)
    return value


def _merge_list(target: list[Any], patch: list[Any], rules: MergeRules, path: Path) -> list[Any]:
    keys = rules.list_keys(path, strategic=True)
    if not keys:
        if rules.is_set(path):
            return target + [item for item in patch if item not in target]
        return clone([item for item in patch if not _is_directive(item)])  # type: ignore[no-any-return]
    if any(_is_directive(item) and item["$patch"] == "replace" and len(item) == 1 for item in patch):
        return clone([item for item in patch if not _is_directive(item)])  # type: ignore[no-any-return]
    merged = list(target)
    for item in patch:
        _merge_item(merged, item, keys, rules, path)
    return merged


def _is_directive(item: Any) -> bool:
    return isinstance(item, dict) and "$patch" in item


def _merge_item(merged: list[Any], item: Any, keys: tuple[str, ...], rules: MergeRules, path: Path) -> None:
    identity = item_key(item, keys) if isinstance(item, dict) else None
    if identity is None:
        raise bad_request(f"map: {item} does not contain declared merge key: {keys[0]}")
    position = next((i for i, old in enumerate(merged) if item_key(old, keys) == identity), None)
    if item.get("$patch") == "delete":
        if position is not None:
            del merged[position]
    elif position is None:
        merged.append(_merge_map({}, item, rules, path))
    else:
        merged[position] = _merge_map(merged[position], item, rules, path)

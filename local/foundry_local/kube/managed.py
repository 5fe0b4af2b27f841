"""Server-side apply and field managers: who owns which field, what an apply changes, when two appliers conflict."""

from dataclasses import dataclass, field
from typing import Any

from foundry_local.kube import errors
from foundry_local.kube.fields import (
    FieldSet,
    describe,
    from_fields_v1,
    remove_path,
    to_fields_v1,
    values_by_path,
)
from foundry_local.kube.schema import MergeRules, item_key
from foundry_local.kube.types import Obj, Path, clone, now_text


@dataclass(slots=True)
class Manager:
    """One entry of `metadata.managedFields`."""

    name: str
    operation: str
    subresource: str
    api_version: str
    fields: FieldSet
    time: str = field(default_factory=now_text)

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.name, self.operation, self.subresource

    def describe(self) -> str:
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text

    def entry(self) -> Obj:
        entry: Obj = {"manager": self.name, "operation": self.operation, "apiVersion": self.api_version}
        entry |= {"time": self.time, "fieldsType": "FieldsV1", "fieldsV1": to_fields_v1(self.fields)}
        return entry | ({"subresource": self.subresource} if self.subresource else {})


def managers_of(obj: Obj) -> list[Manager]:
    return [
        Manager(
            entry["manager"], entry["operation"], entry.get("subresource", ""), entry["apiVersion"],
            from_fields_v1(entry.get("fieldsV1") or {}), entry.get("time", now_text()),
        )
        for entry in obj["metadata"].get("managedFields") or []
    ]  # fmt: skip


def set_managers(obj: Obj, managers: list[Manager]) -> None:
    entries = [manager.entry() for manager in managers if manager.fields]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def record_update(
    old: Obj | None, new: Obj, rules: MergeRules, manager: str, api_version: str, subresource: str = ""
) -> None:
    """After a create, update or patch: the writer owns what it changed, nobody owns what is gone."""
    before = values_by_path(old, rules) if old else {}
    after = values_by_path(new, rules)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    managers = managers_of(old) if old else []
    mine = _entry(managers, Manager(manager, "Update", subresource, api_version, set()))
    previous = set(mine.fields)
    for other in managers:
        other.fields &= after.keys()
        if other is not mine:
            other.fields -= changed
    mine.fields |= changed
    if changed and mine.fields != previous:
        mine.time = now_text()
    set_managers(new, managers)


def _entry(managers: list[Manager], wanted: Manager) -> Manager:
    found = next((item for item in managers if item.identity == wanted.identity), None)
    if found is None:
        managers.append(wanted)
        return wanted
    return found


def apply(live: Obj | None, config: Obj, rules: MergeRules, manager: str, *, force: bool, subresource: str = "") -> Obj:
    """The object after `manager` applies `config`.

    Fields that it applied before and leaves out now are removed unless somebody else owns them too.

    Raises:
        ApiError: 409, another manager owns one of the fields with another value and `force` is off.
    """
    api_version = config["apiVersion"]
    base = live if live is not None else _identity(config)
    managers = managers_of(base)
    mine = _entry(managers, Manager(manager, "Apply", subresource, api_version, set()))
    before, applied = mine.fields, values_by_path(config, rules)
    merged: Obj = _merge(clone(base), config, rules, ())
    _resolve_conflicts(managers, mine, values_by_path(base, rules), applied, force=force)
    kept = set(applied).union(*(item.fields for item in managers if item is not mine))
    _remove_left_out(merged, before - kept, kept, rules)
    if mine.fields != applied.keys():
        mine.fields, mine.time, mine.api_version = set(applied), now_text(), api_version
    set_managers(merged, managers)
    return merged


def _identity(config: Obj) -> Obj:
    metadata = {key: config["metadata"][key] for key in ("name", "namespace") if key in config["metadata"]}
    return {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": metadata}


def _resolve_conflicts(
    managers: list[Manager], mine: Manager, live: dict[Any, Any], applied: dict[Any, Any], *, force: bool
) -> None:
    """Raise where others own what we would change; with `force` take it from them."""
    changed = {path for path, value in applied.items() if path in live and live[path] != value}
    contested = [(other, other.fields & changed) for other in managers if other is not mine]
    if not force:
        found = [(other.describe(), describe(path)) for other, paths in contested for path in sorted(paths)]
        if found:
            raise errors.apply_conflict(found)
    for other, paths in contested:
        other.fields -= paths


def _remove_left_out(merged: Obj, gone: FieldSet, kept: FieldSet, rules: MergeRules) -> None:
    """Parents first: an item that goes takes its fields along, and without its key it could not be found."""
    for path in sorted(gone, key=len):
        if not any(other[: len(path)] == path for other in kept):
            remove_path(merged, path, rules)


def _merge(live: Any, config: Any, rules: MergeRules, names: Path) -> Any:
    """The applied value wins; keyed lists and granular maps merge, everything else replaces."""
    if isinstance(config, dict) and isinstance(live, dict) and not (names and rules.is_atomic_map(names)):
        for key, value in config.items():
            live[key] = _merge(live.get(key), value, rules, (*names, key))
        return live
    if isinstance(config, list) and isinstance(live, list) and names:
        if keys := rules.list_keys(names):
            return _merge_items(live, config, keys, rules, names)
        if rules.is_set(names):
            return live + [item for item in config if item not in live]
    return clone(config)


def _merge_items(
    live: list[Any], config: list[Any], keys: tuple[str, ...], rules: MergeRules, names: Path
) -> list[Any]:
    """Applied items first in their order, then those that only the live object has."""
    by_key = {item_key(item, keys): item for item in live if isinstance(item, dict)}
    merged = []
    for item in config:
        identity = item_key(item, keys) if isinstance(item, dict) else None
        if identity is None:
            field_path = "." + ".".join(names)
            raise errors.bad_request(
                f"{field_path}: element: associative list with keys has an element that omits key field"
            )
        merged.append(_merge(by_key.pop(identity, None), item, rules, names))
    return merged + list(by_key.values())

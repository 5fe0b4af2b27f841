"""The one shape that Kubernetes objects have in here, and small helpers on it."""

import secrets
from datetime import UTC, datetime
from typing import Any, TypeAlias

Obj: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]

_SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def clone(value: Any) -> Any:
    """A deep copy of plain JSON data; several times faster than copy.deepcopy."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def now_text() -> str:
    """Kubernetes `metav1.Time`: RFC 3339, whole seconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro_text() -> str:
    """Kubernetes `metav1.MicroTime`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def random_suffix(length: int = 5) -> str:
    """As apimachinery's names generator: no vowels, so no words."""
    return "".join(secrets.choice(_SAFE_ALPHABET) for _ in range(length))


def dig(obj: Any, *path: str, default: Any = None) -> Any:
    """The value at a path of dict keys, or `default` where a step is missing or null."""
    for key in path:
        if not isinstance(obj, dict):
            return default
        obj = obj.get(key)
    return default if obj is None else obj


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Obj) -> str:
    return str(obj["metadata"].get("namespace", ""))


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"].get("uid", ""))


def labels_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference that carries `controller: true`."""
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def condition(obj: Obj, kind: str) -> Obj | None:
    conditions = dig(obj, "status", "conditions", default=[])
    return next((item for item in conditions if item.get("type") == kind), None)


def set_condition(obj: Obj, kind: str, status: str, reason: str = "", message: str = "") -> None:
    """Set a status condition; the transition time moves only when the status changes."""
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    current = next((item for item in conditions if item.get("type") == kind), None)
    if current is None:
        current = {"type": kind}
        conditions.append(current)
    if current.get("status") != status:
        current["lastTransitionTime"] = now_text()
    current["status"] = status
    for key, value in (("reason", reason), ("message", message)):
        if value:
            current[key] = value
        else:
            current.pop(key, None)

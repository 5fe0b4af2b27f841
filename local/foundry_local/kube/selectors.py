"""Label and field selectors, in their query-string form and as `LabelSelector` objects."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from foundry_local.kube.errors import bad_request
from foundry_local.kube.resources import ResourceType
from foundry_local.kube.types import Obj, dig

Labels = Mapping[str, str]
LabelTest = Callable[[Labels], bool]
ObjectTest = Callable[[Obj], bool]

_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>==|!=|=)\s*(?P<value>[^\s!=,()]*)$")
_EXISTS = re.compile(r"^(?P<negate>!?)\s*(?P<key>[^\s!=,()]+)$")

# Beside metadata.name and metadata.namespace, which every resource has.
_FIELDS: dict[str, frozenset[str]] = {
    "Pod": frozenset({
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
    }),
    "Event": frozenset({
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
        "reason", "reportingComponent", "source", "type", "regarding.kind", "regarding.name",
        "regarding.namespace", "regarding.uid",
    }),
    "Secret": frozenset({"type"}),
    "Namespace": frozenset({"status.phase"}),
    "Node": frozenset({"spec.unschedulable"}),
    "Job": frozenset({"status.successful"}),
    "ReplicaSet": frozenset({"status.replicas"}),
    "Service": frozenset({"spec.clusterIP", "spec.type"}),
}  # fmt: skip


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _requirement(key: str, operator: str, values: list[str]) -> LabelTest:
    if operator == "In":
        return lambda labels: labels.get(key) in values
    if operator == "NotIn":
        return lambda labels: key not in labels or labels[key] not in values
    if operator == "Exists":
        return lambda labels: key in labels
    if operator == "DoesNotExist":
        return lambda labels: key not in labels
    raise bad_request(f"{operator!r} is not a valid label selector operator")


def _parse_term(term: str) -> LabelTest:
    if match := _SET.match(term):
        values = [value.strip() for value in match["values"].split(",")]
        return _requirement(match["key"], "In" if match["op"] == "in" else "NotIn", values)
    if match := _EQUAL.match(term):
        return _requirement(match["key"], "NotIn" if match["op"] == "!=" else "In", [match["value"]])
    if match := _EXISTS.match(term):
        return _requirement(match["key"], "DoesNotExist" if match["negate"] else "Exists", [])
    raise bad_request(f"unable to parse requirement: {term!r}")


def _all(tests: list[LabelTest]) -> LabelTest:
    return lambda labels: all(test(labels) for test in tests)


def parse_label_selector(text: str) -> LabelTest:
    """The `labelSelector` query parameter.

    Raises:
        ApiError: 400, the text is no selector.
    """
    return _all([_parse_term(term) for term in _split(text)])


def label_selector(selector: Obj | None) -> LabelTest:
    """A `metav1.LabelSelector`; null matches nothing, an empty one everything."""
    if selector is None:
        return lambda labels: False
    tests = [_requirement(key, "In", [value]) for key, value in (selector.get("matchLabels") or {}).items()]
    tests += [
        _requirement(rule["key"], rule["operator"], rule.get("values") or [])
        for rule in selector.get("matchExpressions") or []
    ]
    return _all(tests)


def map_selector(selector: Labels | None) -> LabelTest:
    """A plain label map, as a Service has it; an empty one matches nothing."""
    if not selector:
        return lambda labels: False
    return _all([_requirement(key, "In", [value]) for key, value in selector.items()])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def parse_field_selector(text: str, resource: ResourceType) -> ObjectTest:
    """The `fieldSelector` query parameter, for the fields that the real server supports.

    Raises:
        ApiError: 400, the text is no selector or the field is not supported for that kind.
    """
    terms: list[tuple[str, bool, str]] = []
    for term in _split(text):
        match = re.match(r"^([^!=\s]+)\s*(==|!=|=)\s*(.*)$", term)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        supported = {"metadata.name", "metadata.namespace"} | _FIELDS.get(resource.kind, frozenset())
        if match[1] not in supported:
            raise bad_request(
                f'Unable to find "{resource.api_version}, Resource={resource.plural}" that match label selector '
                f'"", field selector "{text}": field label not supported: {match[1]}'
            )
        terms.append((match[1], match[2] != "!=", match[3]))
    return lambda obj: all((_text(dig(obj, *f.split("."))) == value) is equal for f, equal, value in terms)

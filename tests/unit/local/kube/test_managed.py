"""Server-side apply and field ownership, against the rules of structured-merge-diff."""

from typing import Any

import pytest
from foundry_local.kube import managed
from foundry_local.kube.errors import ApiError
from foundry_local.kube.fields import describe, from_fields_v1, to_fields_v1, values_by_path
from foundry_local.kube.schema import MergeRules
from foundry_local.kube.types import clone
from hypothesis import given
from hypothesis import strategies as st

RULES = MergeRules("Deployment")


def config(**spec: Any) -> dict[str, Any]:
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}}
    return body | ({"spec": spec} if spec else {})


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(items)}}}


def apply(live: dict[str, Any] | None, body: dict[str, Any], manager: str, force: bool = False) -> dict[str, Any]:
    return managed.apply(live, clone(body), RULES, manager, force=force)


def owners(obj: dict[str, Any]) -> dict[str, set[str]]:
    return {item.name: {describe(path) for path in item.fields} for item in managed.managers_of(obj)}


def test_fields_v1_looks_like_the_real_thing() -> None:
    live = apply(None, config(**containers({"name": "engine", "image": "a", "ports": [{"containerPort": 80}]})), "x")
    entry = live["metadata"]["managedFields"][0]
    assert entry["manager"] == "x" and entry["operation"] == "Apply" and entry["fieldsType"] == "FieldsV1"
    assert entry["fieldsV1"] == {
        "f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"engine"}': {
            ".": {}, "f:image": {}, "f:name": {},
            "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
        }}}}}
    }  # fmt: skip


def test_apply_twice_changes_nothing() -> None:
    body = config(replicas=2, **containers({"name": "engine", "image": "a"}))
    once = apply(None, body, "x")
    assert apply(clone(once), body, "x") == once


def test_a_field_left_out_is_removed() -> None:
    first = config(replicas=2, paused=True, **containers({"name": "a", "image": "1"}, {"name": "b", "image": "2"}))
    live = apply(None, first, "x")
    live = apply(live, config(replicas=2, **containers({"name": "a", "image": "1"})), "x")
    assert "paused" not in live["spec"]
    assert [item["name"] for item in live["spec"]["template"]["spec"]["containers"]] == ["a"]


def test_a_field_left_out_stays_when_somebody_else_owns_it() -> None:
    live = apply(None, config(replicas=2), "x")
    live = apply(live, config(replicas=2), "y")
    assert owners(live) == {"x": {".spec.replicas"}, "y": {".spec.replicas"}}
    live = apply(live, config(), "x")
    assert live["spec"]["replicas"] == 2 and set(owners(live)) == {"y"}


def test_conflict_names_manager_and_field_and_force_takes_it() -> None:
    live = apply(None, config(replicas=2), "x")
    with pytest.raises(ApiError) as caught:
        apply(live, config(replicas=3), "y")
    assert caught.value.code == 409
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "x": .spec.replicas'
    assert caught.value.details["causes"][0]["field"] == ".spec.replicas"
    forced = apply(live, config(replicas=3), "y", force=True)
    assert forced["spec"]["replicas"] == 3 and owners(forced) == {"y": {".spec.replicas"}}


def test_items_of_keyed_lists_are_owned_apart() -> None:
    live = apply(None, config(**containers({"name": "engine", "image": "a"})), "x")
    live = apply(live, config(**containers({"name": "sidecar", "image": "s"})), "y")
    found = live["spec"]["template"]["spec"]["containers"]
    assert {item["name"] for item in found} == {"engine", "sidecar"}
    live = apply(live, config(), "y")
    assert [item["name"] for item in live["spec"]["template"]["spec"]["containers"]] == ["engine"]


def test_an_atomic_list_has_one_owner() -> None:
    live = apply(None, config(**containers({"name": "engine", "args": ["--a"]})), "x")
    with pytest.raises(ApiError, match=r'containers\[name="engine"\]\.args'):
        apply(live, config(**containers({"name": "engine", "args": ["--a", "--b"]})), "y")


def test_an_update_takes_what_it_changes_and_nothing_else() -> None:
    live = apply(None, config(replicas=2, paused=True), "x")
    new = clone(live)
    new["spec"]["replicas"] = 5
    managed.record_update(live, new, RULES, "kubectl-edit", "apps/v1")
    assert owners(new) == {"x": {".spec.paused"}, "kubectl-edit": {".spec.replicas"}}
    with pytest.raises(ApiError, match=r'conflict with "kubectl-edit" using apps/v1: \.spec\.replicas'):
        apply(new, config(replicas=2, paused=True), "x")


def test_an_update_that_removes_a_field_ends_its_ownership() -> None:
    live = apply(None, config(replicas=2, paused=True), "x")
    new = clone(live)
    del new["spec"]["paused"]
    managed.record_update(live, new, RULES, "someone", "apps/v1")
    assert owners(new) == {"x": {".spec.replicas"}}


def test_item_without_its_key_is_refused() -> None:
    with pytest.raises(ApiError, match="omits key field"):
        apply(apply(None, config(**containers({"name": "a"})), "x"), config(**containers({"image": "b"})), "x")


names = st.sampled_from(["engine", "side", "init"])
container = st.fixed_dictionaries(
    {"name": names},
    optional={
        "image": st.sampled_from(["a", "b"]),
        "args": st.lists(st.sampled_from(["x", "y"]), max_size=2),
        "env": st.lists(st.sampled_from(["A", "B"]), unique=True).map(lambda e: [{"name": n, "value": "1"} for n in e]),
    },
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "template": st.lists(container, unique_by=lambda c: c["name"]).map(lambda c: {"spec": {"containers": c}}),
    },
)


@given(specs)
def test_fields_v1_round_trip(spec: dict[str, Any]) -> None:
    paths = set(values_by_path(config(**spec), RULES))
    assert from_fields_v1(to_fields_v1(paths)) == paths


@given(st.lists(st.tuples(st.sampled_from("xyz"), specs), min_size=1, max_size=5))
def test_forced_applies_always_give_the_last_applier_what_it_asked_for(steps: list[tuple[str, dict[str, Any]]]) -> None:
    live: dict[str, Any] | None = None
    for manager, spec in steps:
        live = apply(live, config(**spec), manager, force=True)
        wanted, there = values_by_path(config(**spec), RULES), values_by_path(live, RULES)
        empty = {path: value for path, value in wanted.items() if value in ([], {})}
        assert {p: v for p, v in wanted.items() if p not in empty}.items() <= there.items()
    assert live is not None
    for entry in managed.managers_of(live):
        assert entry.fields, "no manager without fields is kept"


@given(specs, specs)
def test_applying_nothing_takes_everything_back(first: dict[str, Any], second: dict[str, Any]) -> None:
    alone = apply(None, config(**second), "y")
    both = apply(apply(None, config(**first), "x"), config(**second), "y", force=True)
    left = apply(both, config(), "x", force=True)
    assert owners(left).get("x") is None
    assert {k: v for k, v in values_by_path(alone, RULES).items() if v not in ([], {})}.items() <= values_by_path(
        left, RULES
    ).items()

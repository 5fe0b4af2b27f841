"""The three patch formats; the RFC cases are those of the RFCs' own appendices."""

from typing import Any

import pytest
from foundry_local.kube.errors import ApiError
from foundry_local.kube.patch import json_patch, merge_patch, strategic_merge
from foundry_local.kube.schema import MergeRules
from hypothesis import given
from hypothesis import strategies as st

RULES = MergeRules("Deployment")


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_rfc7386(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/list/1", "value": "x"}], {"list": ["a", "x", "b"], "m": {"k": 1}}),
        ([{"op": "add", "path": "/list/-", "value": "x"}], {"list": ["a", "b", "x"], "m": {"k": 1}}),
        ([{"op": "remove", "path": "/list/0"}], {"list": ["b"], "m": {"k": 1}}),
        ([{"op": "replace", "path": "/m/k", "value": 2}], {"list": ["a", "b"], "m": {"k": 2}}),
        ([{"op": "move", "from": "/m/k", "path": "/k"}], {"list": ["a", "b"], "m": {}, "k": 1}),
        ([{"op": "copy", "from": "/list", "path": "/m/l"}], {"list": ["a", "b"], "m": {"k": 1, "l": ["a", "b"]}}),
        ([{"op": "add", "path": "/a~1b~0c", "value": 1}], {"list": ["a", "b"], "m": {"k": 1}, "a/b~c": 1}),
        ([{"op": "test", "path": "/m/k", "value": 1}], {"list": ["a", "b"], "m": {"k": 1}}),
    ],
)
def test_json_patch_rfc6902(operations: list[Any], result: Any) -> None:
    assert json_patch({"list": ["a", "b"], "m": {"k": 1}}, operations) == result


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "test", "path": "/m", "value": 2}], 422),
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "replace", "path": "/none", "value": 1}], 422),
        ([{"op": "add", "path": "/m/0/x", "value": 1}], 422),
        ([{"op": "remove", "path": ""}], 422),
        ([{"op": "fly", "path": "/m"}], 400),
        ([{"op": "add", "path": "m", "value": 1}], 400),
        ([{"op": "add", "path": "/x"}], 400),
        ({"op": "add"}, 400),
        ([1], 400),
    ],
)
def test_json_patch_refuses(operations: Any, code: int) -> None:
    document = {"m": 1}
    with pytest.raises(ApiError) as caught:
        json_patch(document, operations)
    assert caught.value.code == code
    assert document == {"m": 1}, "all or nothing"


def pod_spec(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def test_strategic_merge_of_containers_by_name() -> None:
    live = pod_spec(
        {"name": "engine", "image": "a", "env": [{"name": "X", "value": "1"}]}, {"name": "side", "image": "s"}
    )
    patch = pod_spec({"name": "engine", "image": "b", "env": [{"name": "Y", "value": "2"}]})
    assert strategic_merge(live, patch, RULES) == pod_spec(
        {"name": "engine", "image": "b", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "side", "image": "s"},
    )


def test_strategic_merge_directives() -> None:
    live = pod_spec({"name": "engine", "image": "a"}, {"name": "side", "image": "s"})
    assert strategic_merge(live, pod_spec({"name": "side", "$patch": "delete"}), RULES) == pod_spec(
        {"name": "engine", "image": "a"}
    )
    replaced = strategic_merge(
        {"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": {"$patch": "replace", "b": "2"}}}, RULES
    )
    assert replaced == {"metadata": {"labels": {"b": "2"}}}
    removed = strategic_merge(
        {"metadata": {"finalizers": ["a", "b"]}}, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, RULES
    )
    assert removed == {"metadata": {"finalizers": ["b"]}}


def test_strategic_merge_replaces_atomic_lists_and_needs_keys() -> None:
    live = pod_spec({"name": "engine", "args": ["--a"]})
    assert strategic_merge(live, pod_spec({"name": "engine", "args": ["--b"]}), RULES) == pod_spec(
        {"name": "engine", "args": ["--b"]}
    )
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        strategic_merge(live, pod_spec({"image": "x"}), RULES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(max_size=3), json_values, max_size=4)


@given(objects, objects)
def test_merge_patch_is_idempotent_and_keeps_its_input(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr(target)
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert repr(target) == before


@given(objects)
def test_hostile_json_patches_only_raise_api_errors(document: dict[str, Any]) -> None:
    for operation in (
        document,
        {"op": "add", "path": "/x/y", "value": document},
        {"op": "move", "from": 3, "path": "/x"},
    ):
        try:
            json_patch({"x": [document]}, [operation])
        except ApiError as problem:
            assert problem.code in (400, 422)

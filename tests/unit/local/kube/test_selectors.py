import pytest
from foundry_local.kube.errors import ApiError
from foundry_local.kube.resources import PODS, SECRETS
from foundry_local.kube.selectors import label_selector, map_selector, parse_field_selector, parse_label_selector

LABELS = {"app": "llm", "tier": "gold", "nvidia.com/gpu.product": "NVIDIA-L40S"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True), ("app=llm", True), ("app==llm", True), ("app!=llm", False), ("other!=x", True),
        ("app in (llm,chat)", True), ("app notin (llm)", False), ("missing notin (x)", True), ("app", True),
        ("!app", False), ("!missing", True), ("app=llm,tier=gold", True), ("app=llm,tier=silver", False),
        ("app in (llm, chat),tier", True), ("nvidia.com/gpu.product=NVIDIA-L40S", True), ("app=", False),
    ],
)  # fmt: skip
def test_label_selector(selector: str, matches: bool) -> None:
    assert parse_label_selector(selector)(LABELS) is matches


@pytest.mark.parametrize("selector", ["a=b=c", "a in x", "(", "a in (x"])
def test_malformed_label_selector(selector: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_label_selector(selector)
    assert caught.value.code == 400


def test_selector_objects() -> None:
    rule = {"key": "tier", "operator": "In", "values": ["gold"]}
    assert label_selector({"matchLabels": {"app": "llm"}, "matchExpressions": [rule]})(LABELS)
    assert label_selector({})(LABELS), "an empty selector selects everything"
    assert not label_selector(None)(LABELS), "a null selector selects nothing"
    assert not map_selector({})(LABELS), "a service without selector has no endpoints"


def test_field_selector() -> None:
    pod = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "h"}, "status": {"phase": "Running"}}
    assert parse_field_selector("spec.nodeName=h,status.phase!=Failed", PODS)(pod)
    assert not parse_field_selector("metadata.name=b", PODS)(pod)
    assert parse_field_selector("status.podIP=", PODS)(pod), "an absent field is the empty text"
    with pytest.raises(ApiError, match=r"field label not supported: spec\.nodeName"):
        parse_field_selector("spec.nodeName=h", SECRETS)

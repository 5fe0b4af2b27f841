"""Routing: who answers, and who is left alone."""

import json
from collections import Counter
from typing import Any

from gateway.core.choose import Chooser, PrefixMap, chain_of
from gateway.core.snapshot import Endpoint, load


def endpoint(routing: str, *tiers: list[dict[str, Any]]) -> Endpoint:
    full = [[{"url": "http://x", "model": "m"} | d for d in tier] for tier in tiers]
    body = {"version": 1, "keys": [], "endpoints": [{"name": "e", "tiers": full, "policy": {"routing": routing}}]}
    return load(json.dumps(body).encode()).endpoints["e"]


def test_least_outstanding_takes_turns_and_avoids_the_busy() -> None:
    found, chooser = endpoint("least_outstanding", [{"id": "a"}, {"id": "b"}]), Chooser()
    assert Counter(chooser.choose(found, (), 0.0).id for _ in range(10)) == {"a": 5, "b": 5}  # type: ignore[union-attr]
    found.tiers[0][0].outstanding = 3
    assert {chooser.choose(found, (), 0.0).id for _ in range(10)} == {"b"}  # type: ignore[union-attr]


def test_weights_are_kept() -> None:
    found, chooser = (
        endpoint("weighted", [{"id": "a", "weight": 3}, {"id": "b"}, {"id": "off", "weight": 0}]),
        Chooser(1),
    )
    counts = Counter(chooser.choose(found, (), 0.0).id for _ in range(4000))  # type: ignore[union-attr]
    assert set(counts) == {"a", "b"} and 2800 < counts["a"] < 3200


def test_tiers_are_tried_in_order_and_the_tried_are_skipped() -> None:
    found, chooser = endpoint("least_outstanding", [{"id": "a"}], [{"id": "b"}]), Chooser()
    first = chooser.choose(found, (), 0.0)
    assert first is not None and first.id == "a"
    second = chooser.choose(found, (first,), 0.0)
    assert second is not None and second.id == "b"
    assert chooser.choose(found, (first, second), 0.0) is None


def test_the_same_prefix_goes_to_the_same_deployment_unless_it_is_much_busier() -> None:
    found, chooser = endpoint("prefix_affinity", [{"id": "a"}, {"id": "b"}, {"id": "c"}]), Chooser()
    prompts = [b'{"model":"m","messages":' + bytes([65 + n]) * 5000 for n in range(6)]
    owners = [chooser.choose(found, (), 0.0, prompt) for prompt in prompts]
    assert len({owner.id for owner in owners if owner}) == 3, "different prompts spread"
    for prompt, owner in zip(prompts, owners, strict=True):
        assert all(chooser.choose(found, (), 0.0, prompt + b"tail" * n) is owner for n in range(1, 20))
    assert owners[0] is not None
    owners[0].outstanding = 50
    assert chooser.choose(found, (), 0.0, prompts[0]) is not owners[0]


def test_the_model_name_does_not_matter_for_the_prefix_and_the_map_is_bounded() -> None:
    tail = b'"messages":[' + b"x" * 4000
    assert chain_of(b'{"model":"a",' + tail) == chain_of(b'{"model":"bbbb",' + tail) != []
    prefixes = PrefixMap(capacity=10)
    [deployment] = endpoint("weighted", [{"id": "a"}]).tiers[0]
    prefixes.learn(list(range(100)), deployment)
    assert len(prefixes.owners) == 10


def test_predicted_latency_prefers_the_faster() -> None:
    found, chooser = endpoint("predicted_latency", [{"id": "a"}, {"id": "b"}]), Chooser()
    found.tiers[0][0].latency_s, found.tiers[0][1].latency_s = 0.5, 0.1
    chosen = chooser.choose(found, (), 0.0)
    assert chosen is not None and chosen.id == "b"
    found.tiers[0][1].outstanding = 9
    chosen = chooser.choose(found, (), 0.0)
    assert chosen is not None and chosen.id == "a"

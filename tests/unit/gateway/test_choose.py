"""Routing: who answers, and who is left alone."""

import json
from collections import Counter
from typing import Any

from gateway.core import health
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


def test_a_burst_of_failures_opens_the_breaker_no_longer_than_three() -> None:
    """Twenty requests were under way when the engine died; a second later it may be back."""
    tier = endpoint("least_outstanding", [{"id": "a"}, {"id": "b"}]).tiers[0]
    for _ in range(20):
        health.note_failure(tier[0], 100.0)
    assert not health.usable(tier[0], 100.5) and health.usable(tier[0], 101.0)
    assert not health.eject_outliers(tier, 100.0)


def test_the_breaker_opens_after_three_failures_and_lets_a_probe_through() -> None:
    found, chooser = endpoint("least_outstanding", [{"id": "a"}]), Chooser()
    [deployment] = found.tiers[0]
    for _ in range(3):
        health.note_failure(deployment, 100.0)
    assert chooser.choose(found, (), 100.5) is None
    assert chooser.choose(found, (), 101.5) is deployment
    health.note_failure(deployment, 101.5)
    assert chooser.choose(found, (), 103.0) is None, "open for twice as long"
    health.note_success(deployment, 0.1)
    assert chooser.choose(found, (), 103.6) is deployment


def test_outliers_are_ejected_but_never_more_than_half() -> None:
    found = endpoint("least_outstanding", [{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}])
    for deployment in found.tiers[0][:3]:
        deployment.failure_rate = 0.9
    assert len(health.eject_outliers(found.tiers[0], 1.0)) == 2
    assert health.eject_outliers(found.tiers[0], 1.0) == []


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

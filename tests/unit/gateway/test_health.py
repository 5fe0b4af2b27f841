"""Whose fault a failure is, and who is left alone for it."""

import json

import pytest
from gateway.core import health
from gateway.core.call import Call
from gateway.core.exchange import Exchange
from gateway.core.policy import Policy
from gateway.core.shapes import TextCall
from gateway.core.snapshot import Deployment, load


def policy_of(*names: str, hold_s: float = 0) -> Policy:
    tier = [{"id": name, "url": "http://x", "model": "m", "asleep": name == "asleep"} for name in names]
    endpoint = {"name": "e", "tiers": [tier], "policy": {"hold_s": hold_s}}
    policy = Policy("g", "b")
    policy.swap(load(json.dumps({"version": 1, "keys": [], "endpoints": [endpoint]}).encode()))
    return policy


def tier_of(policy: Policy) -> tuple[Deployment, ...]:
    assert policy.snapshot is not None
    return policy.snapshot.endpoints["e"].tiers[0]


def begun(policy: Policy) -> Exchange:
    assert policy.snapshot is not None
    exchange = Exchange("1", "/v1/chat/completions", 0.0, 0)
    exchange.call = Call(TextCall("m"))
    exchange.endpoint = exchange.answered_by = policy.snapshot.endpoints["e"]
    return exchange


def ask(policy: Policy, now_s: float, answers: dict[str, int | None], retries: bool = True) -> list[str]:
    """One request; ``answers`` by deployment, None for no answer. Returns who was asked."""
    exchange, asked = begun(policy), []
    deployment = policy.choose(exchange, now_s)
    while deployment is not None:
        asked.append(deployment.id)
        status = answers.get(deployment.id, 200)
        again = status != 200 and policy.attempt_failed(exchange, status, now_s, sent=not retries)
        following = policy.retry(exchange, now_s) if again else None
        if following is None and status is not None:
            policy.first_byte(exchange, status, now_s)
        deployment = following
    policy.finish(exchange, 200, "ok", now_s)
    return asked


def out(policy: Policy, now_s: float) -> set[str]:
    return {d.id for d in tier_of(policy) if not health.usable(d, now_s)}


@pytest.mark.parametrize("status", [500, 503, None])
def test_a_request_that_fails_everywhere_counts_against_nobody(status: int | None) -> None:
    policy = policy_of("a", "b")
    for _ in range(50):
        assert sorted(ask(policy, 100.0, {"a": status, "b": status})) == ["a", "b"]
    assert health.eject_outliers(tier_of(policy), 100.0) == []
    assert out(policy, 100.0) == set()
    assert all(health.failure_rate(d) == 0.0 for d in tier_of(policy))


def test_a_request_that_one_fails_and_another_refuses_counts_against_nobody() -> None:
    policy = policy_of("a", "b")
    for _ in range(50):
        assert ask(policy, 100.0, {"a": 500, "b": 400})[-1] == "b"
    assert health.eject_outliers(tier_of(policy), 100.0) == []
    assert tier_of(policy)[0].failures == 0.0


@pytest.mark.parametrize("begun", [True, False])
def test_one_that_breaks_off_its_answers_is_ejected(begun: bool) -> None:
    policy = policy_of("a", "b")
    for _ in range(30):
        exchange = begun_by(policy, "a", 100.0)
        if begun:
            policy.first_byte(exchange, 200, 100.0)
        policy.broken_off(exchange)
        policy.finish(exchange, 200, "cut", 100.0)
    [broken, _] = tier_of(policy)
    assert health.failure_rate(broken) == 1.0
    assert health.eject_outliers(tier_of(policy), 100.0) == [broken]


def test_a_failure_whose_body_is_cut_counts_once() -> None:
    policy = policy_of("a")
    exchange = begun_by(policy, "a", 100.0)
    assert policy.attempt_failed(exchange, 500, 100.0, sent=False) and policy.retry(exchange, 100.0) is None
    policy.first_byte(exchange, 500, 100.0)
    policy.broken_off(exchange)
    policy.finish(exchange, 500, "cut", 100.0)
    [deployment] = tier_of(policy)
    assert (deployment.requests, deployment.failures) == (1.0, 1.0)


def begun_by(policy: Policy, name: str, now_s: float) -> Exchange:
    """A request that was given to this deployment."""
    for _ in tier_of(policy):
        exchange = begun(policy)
        chosen = policy.choose(exchange, now_s)
        if chosen is not None and chosen.id == name:
            return exchange
        policy.finish(exchange, 200, "ok", now_s)
    raise AssertionError(f"{name} has no turn")


def test_three_without_an_answer_that_another_gave_open_the_breaker() -> None:
    policy = policy_of("a", "b")
    while tier_of(policy)[0].silences < 3:
        assert out(policy, 100.0) == set()
        assert ask(policy, 100.0, {"a": None})[-1] == "b"
    assert out(policy, 100.9) == {"a"}
    assert ask(policy, 100.9, {}) == ["b"]


def test_a_burst_of_silences_opens_the_breaker_no_longer_than_three() -> None:
    """Twenty requests were under way when the engine died; a second later it may be back."""
    [deployment, _] = tier_of(policy_of("a", "b"))
    for _ in range(20):
        health.note_silence(deployment, 100.0)
    assert not health.usable(deployment, 100.5) and health.usable(deployment, 101.0)


def opened(policy: Policy) -> Deployment:
    """The first deployment, whose breaker was opened at 100 s for 1 s."""
    deployment = tier_of(policy)[0]
    for _ in range(3):
        health.note_silence(deployment, 100.0)
    return deployment


def probe_by(policy: Policy, deployment: Deployment, now_s: float) -> Exchange:
    """The request that is the probe: it comes within one round of turns."""
    for _ in tier_of(policy):
        exchange = begun(policy)
        if policy.choose(exchange, now_s) is deployment:
            return exchange
        policy.finish(exchange, 200, "ok", now_s)
    raise AssertionError("no probe")


def test_when_its_time_is_over_one_request_is_the_probe() -> None:
    policy = policy_of("a", "b")
    deployment = opened(policy)
    probe = probe_by(policy, deployment, 101.5)
    assert [ask(policy, 102.0, {}) for _ in range(6)] == [["b"]] * 6, "the others wait for it"
    policy.first_byte(probe, 200, 102.0)
    assert out(policy, 102.0) == set()


def test_a_probe_without_an_answer_opens_the_breaker_for_twice_as_long() -> None:
    policy = policy_of("a", "b")
    deployment = opened(policy)
    probe = probe_by(policy, deployment, 101.5)
    assert policy.attempt_failed(probe, None, 101.5, sent=False)
    assert policy.retry(probe, 101.5) is tier_of(policy)[1]
    policy.first_byte(probe, 200, 101.5)
    assert out(policy, 103.4) == {"a"} and out(policy, 103.5) == set()


def test_a_probe_that_nobody_hears_of_is_followed_by_another() -> None:
    policy = policy_of("a", "b")
    deployment = opened(policy)
    policy.finish(probe_by(policy, deployment, 101.5), 499, "cancelled", 101.6)
    assert out(policy, 111.4) == {"a"}
    assert probe_by(policy, deployment, 111.5).deployment is deployment


def test_one_that_fails_what_others_answer_is_ejected_until_a_probe_succeeds() -> None:
    policy = policy_of("a", "b")
    for _ in range(30):
        assert ask(policy, 100.0, {"a": 500})[-1] == "b"
    [ejected] = health.eject_outliers(tier_of(policy), 100.0)
    assert ejected.id == "a" and out(policy, 109.9) == {"a"}
    probe = probe_by(policy, ejected, 110.0)
    assert out(policy, 110.0) == {"a"}
    policy.first_byte(probe, 200, 111.0)
    assert out(policy, 111.0) == set()


def test_a_failed_probe_keeps_an_ejected_one_out() -> None:
    policy = policy_of("a", "b")
    deployment = tier_of(policy)[0]
    deployment.requests = deployment.failures = 20.0
    health.eject_outliers(tier_of(policy), 100.0)
    probe = probe_by(policy, deployment, 110.0)
    assert policy.attempt_failed(probe, 500, 112.0, sent=False) and policy.retry(probe, 112.0) is not None
    policy.first_byte(probe, 200, 112.0)
    health.note_success(deployment, 0.1)  # of a request that was sent long before
    assert out(policy, 119.9) == {"a"}


def test_few_failures_eject_nobody() -> None:
    policy = policy_of("a", "b")
    for _ in range(18):
        ask(policy, 100.0, {"a": 500}, retries=False)
    assert tier_of(policy)[0].failures == 9.0
    assert health.eject_outliers(tier_of(policy), 100.0) == []


def test_failures_are_forgotten() -> None:
    policy = policy_of("a", "b")
    for _ in range(40):
        ask(policy, 100.0, {"a": 500}, retries=False)
    for _ in range(10):
        health.fade(tier_of(policy)[0])
    assert health.eject_outliers(tier_of(policy), 110.0) == []


@pytest.mark.parametrize(("names", "most"), [("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2)])
def test_at_most_half_of_a_tier_is_ejected_the_worst_first(names: str, most: int) -> None:
    tier = tier_of(policy_of(*names))
    for deployment in tier:
        deployment.requests = deployment.failures = 100.0
    tier[-1].requests = 99.0
    assert len(health.eject_outliers(tier, 1.0)) == most
    assert health.eject_outliers(tier, 1.0) == []


def test_one_that_failed_of_late_is_better_than_none() -> None:
    policy = policy_of("a")
    opened(policy)
    assert ask(policy, 100.1, {}) == ["a"]


def test_but_not_better_than_waking_one() -> None:
    policy = policy_of("a", "asleep", hold_s=20)
    opened(policy)
    assert ask(policy, 100.1, {}) == []

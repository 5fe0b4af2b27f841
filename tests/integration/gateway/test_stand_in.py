"""Who answers for whom: fallbacks, canaries, and what is woken meanwhile."""

from typing import Any

import pytest

from .conftest import until


async def test_an_adapter_falls_back_only_to_engines_that_have_it(stack: Any) -> None:
    """Never to the base model of another endpoint: that is not what was asked for."""
    model = {"url": f"http://127.0.0.1:{stack.engines[1].port}", "model": "base"}
    without = {"name": "without", "tiers": [[{"id": "dep_w", **model}]], "adapters": {"other-public": "lora-8"}}
    having = {"name": "having", "tiers": [[{"id": "dep_h", **model}]], "adapters": {"their-name": "lora-7"}}
    stack.config["endpoints"] += [without, having]
    stack.config["endpoints"][0]["tiers"] = [[{"id": "dep_x", "url": "http://127.0.0.1:9", "model": "llama"}]]
    await stack.change_endpoint(adapters={"tuned": "lora-7"}, policy={"fallbacks": ["without"]})
    answer = await stack.chat(model="tuned")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert (await stack.chat()).status_code == 200
    await stack.change_endpoint(policy={"fallbacks": ["without", "having"]})
    assert (await stack.chat(model="tuned")).status_code == 200
    assert [r.json()["model"] for r in stack.engines[1].requests] == ["base", "lora-7"]


async def test_a_canary_may_not_pass_by_what_its_own_endpoint_asks(stack: Any) -> None:
    deployment = {"url": f"http://127.0.0.1:{stack.engines[1].port}", "model": "m"}
    tier = [stack.config["endpoints"][0]["tiers"][0][0] | {"weight": 0.01}, {"id": "dep_n/llama", **deployment}]
    tier[1]["endpoint"] = "next"
    following = {"name": "next", "tiers": [[{"id": "dep_n", **deployment}]], "limits": {"requests_per_minute": 1}}
    stack.config["endpoints"].append(following)
    stack.gateway.policy.chooser.random.seed(7)
    await stack.change_endpoint(tiers=[tier], policy={"routing": "weighted"})
    assert {(await stack.chat()).status_code for _ in range(4)} == {200} and not stack.engines[1].requests
    following["limits"] = {}
    await stack.reconfigure()
    assert {(await stack.chat()).status_code for _ in range(4)} == {200} and stack.engines[1].requests


@pytest.mark.parametrize("other", ["canary", "fallback"])
async def test_what_sleeps_is_woken_while_others_answer(stack: Any, other: str) -> None:
    """Else a canary, or a fallback, would keep all requests for as long as it is there."""
    asleep, awake = stack.config["endpoints"][0]["tiers"][0]
    asleep["asleep"] = True
    policy = {"hold_s": 20, "routing": "weighted"}
    if other == "fallback":
        stack.config["endpoints"].append({"name": "spare", "tiers": [[awake]]})
        policy["fallbacks"] = ["spare"]
    await stack.change_endpoint(tiers=[[asleep, awake] if other == "canary" else [asleep]], policy=policy)
    assert [(await stack.chat()).status_code for _ in range(3)] == [200, 200, 200]
    await until(lambda: ("deployment:dep_0", "wake") in [name[:2] for name in stack.stand_in.escrow.committed])
    assert stack.gateway.policy.book.scopes["deployment:dep_0", "wake"].lease.held == 0

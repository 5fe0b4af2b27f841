"""The response cache end to end, in both forms of the gateway."""

import asyncio
from typing import Any

import pytest

from .conftest import OTHER_KEY, Engine, EngineRequest, Stack
from .test_conformance import events_of


@pytest.fixture
async def cached(stack: Stack) -> Stack:
    await stack.change_endpoint(policy={"cache_ttl_s": 60})
    return stack


def asked(stack: Stack) -> int:
    return sum(len(engine.requests) for engine in stack.engines)


async def test_the_second_answer_comes_from_the_cache_and_costs_nothing(cached: Stack) -> None:
    first = await cached.chat(seed=1)
    second = await cached.chat(seed=1)
    assert (first.headers["x-foundry-cache"], second.headers["x-foundry-cache"]) == ("miss", "hit")
    assert first.content == second.content and first.headers["content-type"] == second.headers["content-type"]
    assert asked(cached) == 1
    paid, free = await cached.rows(2)
    assert (paid["outcome"], free["outcome"]) == ("ok", "cached")
    assert (free["input_tokens"], free["output_tokens"], free["usage_source"]) == (11, 3, "upstream")
    assert (free["cost_nanos"], free["deployment_id"], free["status"], free["project_id"]) == (0, "", 200, "prj_1")
    assert paid["cost_nanos"] > 0 and free["event_id"] != paid["event_id"]


async def test_a_stream_is_replayed_with_the_same_events(cached: Stack) -> None:
    first = await cached.chat(stream=True)
    second = await cached.chat(stream=True)
    assert second.headers["x-foundry-cache"] == "hit" and second.headers["content-type"].startswith("text/event-stream")
    assert first.content == second.content and events_of(second.content)[-1] == "[DONE]"
    rows = await cached.rows(2)
    assert [row["outcome"] for row in rows] == ["ok", "cached"] and rows[1]["stream"] is True
    assert rows[1]["output_tokens"] == 3


async def test_a_whole_answer_serves_a_stream_but_not_the_other_way_round(cached: Stack) -> None:
    whole = await cached.chat()
    stream = await cached.chat(stream=True)
    assert stream.headers["x-foundry-cache"] == "hit" and '"content":"hello"' in events_of(stream.content)[0]
    assert whole.json()["choices"][0]["message"]["content"] == "hello"
    await cached.chat(stream=True, seed=2)
    assert (await cached.chat(seed=2)).headers["x-foundry-cache"] == "miss"


async def test_the_usage_event_is_replayed_to_those_who_ask_for_it(cached: Stack) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    first = await cached.chat(**options)
    assert (await cached.chat(stream=True)).headers["x-foundry-cache"] == "miss"
    again = await cached.chat(**options)
    assert again.headers["x-foundry-cache"] == "hit" and again.content == first.content
    assert '"usage"' in events_of(again.content)[-2]


async def test_projects_do_not_see_each_other_s_answers(cached: Stack) -> None:
    cached.config["keys"][1]["models"] = None
    await cached.reconfigure()
    await cached.chat()
    assert (await cached.chat(key=OTHER_KEY)).headers["x-foundry-cache"] == "miss"
    assert asked(cached) == 2


@pytest.mark.parametrize("directive", ["no-store", "no-cache", "max-age=0, No-Cache"])
async def test_clients_may_opt_out(cached: Stack, directive: str) -> None:
    headers = {**cached.headers(), "Cache-Control": directive}
    body = {"model": "llama", "messages": []}
    for _ in range(2):
        response = await cached.client.post("/v1/chat/completions", json=body, headers=headers)
        assert "x-foundry-cache" not in response.headers
    response = await cached.client.post("/v1/chat/completions", json=body, headers=cached.headers())
    assert response.headers["x-foundry-cache"] == "miss"
    assert asked(cached) == 3


async def test_errors_and_cut_streams_are_not_kept(cached: Stack) -> None:
    async def refuse(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.answer(writer, {"error": {"message": "no"}}, 422)

    async def break_off(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [{"index": 0, "delta": {"content": "x"}}]})
        await writer.drain()
        writer.transport.abort()

    async def no_end(engine: Engine, request: EngineRequest, writer: asyncio.StreamWriter) -> None:
        engine.begin_stream(writer)
        engine.event(writer, {"choices": [{"index": 0, "delta": {"content": "x"}}]})
        writer.write(b"0\r\n\r\n")

    async def ask(**fields: Any) -> None:
        try:
            await cached.chat(**fields)
        except Exception as error:
            assert "closed" in str(error) or "incomplete" in str(error)

    for script, fields in ((refuse, {}), (break_off, {"stream": True}), (no_end, {"stream": True})):
        for engine in cached.engines:
            engine.script = script
        before = asked(cached)
        await ask(**fields)
        await ask(**fields)
        assert asked(cached) >= before + 2


async def test_a_hit_counts_as_a_request_and_spends_no_budget(stack: Stack) -> None:
    stack.config["keys"][0]["limits"] = {"requests_per_minute": 100, "budget_nanos": 10**9, "tokens_per_minute": 10**6}
    await stack.change_endpoint(policy={"cache_ttl_s": 60})
    for _ in range(5):
        assert (await stack.chat()).status_code == 200
    await stack.rows(5)
    spent = {kind: scope.lease.spent for (_, kind), scope in stack.gateway.policy.book.scopes.items()}
    assert spent == {"requests": 5, "tokens": 14, "money_nanos": 11 * 10 + 3 * 30}


async def test_another_model_behind_the_name_is_another_answer(cached: Stack) -> None:
    await cached.chat()
    for deployment in cached.config["endpoints"][0]["tiers"][0]:
        deployment["model"] = "llama-v2"
    await cached.reconfigure()
    assert (await cached.chat()).headers["x-foundry-cache"] == "miss"


async def test_without_the_policy_nothing_is_kept(stack: Stack) -> None:
    await stack.chat()
    response = await stack.chat()
    assert "x-foundry-cache" not in response.headers and asked(stack) == 2


async def test_what_is_kept_has_passed_the_guardrails(stack: Stack) -> None:
    mail = {"id": "g", "kind": "pii", "patterns": ["email"], "action": "redact"}
    deny = {"id": "d", "kind": "deny", "patterns": ["hello"], "action": "redact", "on": ["output"]}
    await stack.change_endpoint(policy={"cache_ttl_s": 60, "guardrails": [mail, deny]})
    for expected in ("miss", "hit"):
        response = await stack.chat()
        assert response.headers["x-foundry-cache"] == expected
        assert response.json()["choices"][0]["message"]["content"] == "*****"
    await stack.change_endpoint(policy={"cache_ttl_s": 60, "guardrails": [mail]})
    assert (await stack.chat()).json()["choices"][0]["message"]["content"] == "hello"

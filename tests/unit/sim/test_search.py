"""The search: proposals keep their promises, costs add up, nothing is left out, and there is an answer to no."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from foundry_sim.errors import SimulatorError
from foundry_sim.facts.architecture import resolve
from foundry_sim.facts.devices import device
from foundry_sim.facts.parallel import Span, layouts, replicas_that_fit, tp_divides
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.workloads import CLASSES
from foundry_sim.predict import predict
from foundry_sim.requests import parse
from foundry_sim.search.candidates import blocks, candidates
from foundry_sim.search.capacity import options
from foundry_sim.search.disaggregated import disaggregated, stagewise, steady
from foundry_sim.search.fleet import Slot, fleet_problem
from foundry_sim.search.genetic import enumerate_all, evolve
from foundry_sim.search.judge import cautious
from foundry_sim.search.plans import (
    BlockedConfiguration,
    DeviceGroup,
    LoraSettings,
    Plan,
    ServiceLevels,
    SimulationRequest,
    SimulationResult,
    Spread,
    Statistic,
    Workload,
)
from foundry_sim.search.queries import node_configurations, recommend
from foundry_sim.search.search import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

H100 = DeviceGroup(name="h100", device="H100-80GB", nodes=2, devices_per_node=8)
A100 = DeviceGroup(name="a100", device="A100-80GB", nodes=1, devices_per_node=8)
L40S = DeviceGroup(name="l40s", device="L40S", nodes=1, devices_per_node=4)
CPU = DeviceGroup(name="cpu", device="xeon_6767p", nodes=1, devices_per_node=2)
CLUSTER = [H100, A100, L40S, CPU]


def ask(**fields: object) -> SimulationRequest:
    base: dict[str, object] = {
        "model": "meta-llama/Llama-3.1-8B",
        "device_groups": CLUSTER,
        "workload": Workload(input_tokens=1024, output_tokens=256, concurrency=64),
        "service_levels": ServiceLevels(ttft_ms=2000, tokens_per_second=20),
    }
    return SimulationRequest(**{**base, **fields})


@pytest.fixture(scope="module")
def answer() -> SimulationResult:
    return simulate(ask())


def upper(plan: Plan, name: str) -> float:
    return promised(getattr(plan.predicted, name), "mean")


def promised(spread: Spread, statistic: str) -> float:
    value, mean, hi = (np.array(getattr(spread, name)) for name in (statistic, "mean", "hi"))
    return float(cautious(value, mean, hi))


def test_a_cautious_bound_lies_inside_the_interval_and_keeps_the_shape() -> None:
    value, mean, hi = np.array([80.0, 100.0, 300.0]), np.full(3, 100.0), np.full(3, 144.0)
    np.testing.assert_allclose(cautious(value, mean, hi, 0.5), 1.2 * value)
    assert (cautious(value, mean, hi, 0.0) == value).all()
    np.testing.assert_allclose(cautious(value, mean, hi, 1.0), 1.44 * value)


def test_plans_keep_the_service_levels_at_the_cautious_bound(answer: SimulationResult) -> None:
    assert answer.feasible
    for plan in answer.plans:
        assert plan.meets_service_levels
        assert not plan.missed
        assert upper(plan, "ttft_ms") <= 2000 * 1.0001
        assert upper(plan, "tpot_ms") <= 50 * 1.0001


def test_plans_are_priced_and_ordered(answer: SimulationResult) -> None:
    costs = [plan.cost_nanos_per_hour for plan in answer.plans]
    assert costs == sorted(costs)
    for plan in answer.plans:
        assert plan.devices == plan.tp * plan.pp * plan.dp * plan.replicas
        assert plan.cost_nanos_per_hour == plan.devices * plan.price_nanos_per_device_hour
        per_million = plan.cost_nanos_per_hour / (plan.predicted.output_tokens_per_s * 3600) * 1e6
        assert plan.cost_nanos_per_million_output_tokens == pytest.approx(per_million, rel=1e-6)


def test_the_answer_is_json_and_the_same_every_time(answer: SimulationResult) -> None:
    again = simulate(ask())
    strip = {"elapsed_ms"}
    assert answer.model_dump(exclude=strip) == again.model_dump(exclude=strip)
    assert SimulationResult.model_validate(json.loads(answer.model_dump_json())) == answer
    assert len({plan.id for plan in answer.plans}) == len(answer.plans)


def test_every_group_and_engine_is_compared(answer: SimulationResult) -> None:
    pairs = {(plan.device_group, plan.engine) for plan in answer.comparison}
    assert {("h100", "vllm"), ("h100", "sglang"), ("h100", "trtllm"), ("a100", "vllm"), ("l40s", "vllm")} <= pairs
    assert ("cpu", "vllm") in pairs
    assert ("cpu", "trtllm") not in pairs


def test_two_groups_of_one_device_are_not_lumped() -> None:
    near = DeviceGroup(name="near", device="h100_sxm", nodes=1, devices_per_node=1, price_nanos_per_hour=9 * 10**9)
    far = near.model_copy(update={"name": "far", "price_nanos_per_hour": 10**9})
    found = simulate(
        ask(device_groups=[near, far], workload=Workload(input_tokens=100, output_tokens=50, concurrency=2))
    )
    assert {plan.device_group for plan in found.comparison} == {"near", "far"}
    assert found.plans[0].device_group == "far"
    assert found.plans[0].cost_nanos_per_hour == 10**9


def test_the_pareto_front_is_a_front(answer: SimulationResult) -> None:
    points = [(point.tokens_per_s_per_user, point.tokens_per_s_per_device) for point in answer.pareto]
    assert len(points) > 2
    for speed, density in points:
        assert not any(s >= speed and d >= density and (s, d) != (speed, density) for s, d in points)


def test_the_best_plan_is_replayed_event_by_event(answer: SimulationResult) -> None:
    best, replay = answer.plans[0], answer.replay
    assert replay and replay.requests >= 200
    assert 0 < replay.goodput_share <= 1
    assert replay.goodput_requests_per_s == pytest.approx(replay.goodput_share * best.predicted.requests_per_s)
    gaps = replay.itl_ms
    assert 0 < gaps.p50 <= gaps.p95 <= gaps.p99
    assert gaps.mean == pytest.approx(best.predicted.tpot_ms.mean, rel=0.05)  # gaps weigh longer answers more


@pytest.mark.parametrize("load", [{"concurrency": 48}, {"rate_per_s": 4.0}])
def test_goodput_falls_with_what_is_asked_for_and_needs_none(load: dict[str, float]) -> None:
    work = Workload(input_tokens=1000, output_tokens=100, **load)

    def share(**levels: float) -> float:
        found = simulate(ask(**fields, service_levels=ServiceLevels(**levels)))
        return found.replay.goodput_share if found.replay else 0.0

    fields: dict[str, object] = {"device_groups": [H100], "workload": work, "replicas": 1, "engines": ["vllm"]}
    limit = simulate(ask(**fields, service_levels=ServiceLevels())).plans[0].predicted.e2e_ms.hi
    assert share() == 1.0
    assert 0 < share(e2e_ms=limit) <= 1.0
    assert share(e2e_ms=limit) <= share(e2e_ms=10 * limit) == 1.0


def test_a_replay_is_bounded_however_long_and_crowded_the_load() -> None:
    for work in ({"input_tokens": 120_000, "output_tokens": 10}, {"input_tokens": 1, "output_tokens": 2000}):
        load = Workload(**work, concurrency=100_000)
        found = simulate(ask(device_groups=[H100], engines=["vllm"], workload=load, service_levels=ServiceLevels()))
        assert found.replay and 200 <= found.replay.requests <= 2000


def test_purchase_and_own_prices_change_the_cost() -> None:
    spot = simulate(ask(device_groups=[H100], purchase="spot")).plans[0]
    assert spot.price_nanos_per_device_hour == device("h100_sxm").price_nanos_per_hour["spot"]
    own = H100.model_copy(update={"price_nanos_per_hour": 7})
    assert simulate(ask(device_groups=[own])).plans[0].price_nanos_per_device_hour == 7


def test_an_infeasible_request_says_what_binds_and_what_would_do() -> None:
    found = simulate(ask(model="meta-llama/Llama-3.1-70B", device_groups=[A100], service_levels=ServiceLevels(
        ttft_ms=2000, tokens_per_second=60)))  # fmt: skip
    assert not found.feasible
    assert found.plans == []
    assert found.binding_constraint == "tokens_per_second"
    assert found.nearest is not None
    levels, near = found.nearest.service_levels, found.nearest.plan
    assert levels.tokens_per_second is not None
    assert levels.tokens_per_second < 60
    relaxed = simulate(ask(model="meta-llama/Llama-3.1-70B", device_groups=[A100], service_levels=levels))
    assert relaxed.feasible, "the nearest service levels must be reachable"
    assert near.device_group == "a100"
    for suggestion in found.hardware:
        assert suggestion.plan.meets_service_levels
        assert suggestion.device != "a100_sxm" or suggestion.nodes > 1


def test_a_plan_that_is_only_expected_to_meet_is_named_as_the_nearest() -> None:
    met = simulate(ask(confidence="expected", service_levels=ServiceLevels())).plans[0]
    just = ServiceLevels(ttft_ms=met.predicted.ttft_ms.mean * 1.1)
    groups = [next(group for group in CLUSTER if group.name == met.device_group)]
    asked = {"device_groups": groups, "service_levels": just, "engines": [met.engine], "replicas": met.replicas}
    blocked = [BlockedConfiguration(tp=tp) for tp in (1, 2, 4, 8) if tp != met.tp]
    found = simulate(ask(**asked, blocked=blocked))
    assert not found.feasible and found.nearest
    assert "is sure to meet" in found.headline and "expected values meet" in found.explanation
    assert simulate(ask(**asked, blocked=blocked, confidence="expected")).feasible


def test_a_model_that_does_not_fit_names_memory() -> None:
    found = simulate(ask(model="deepseek-ai/DeepSeek-V3", device_groups=[L40S]))
    assert not found.feasible
    assert found.binding_constraint == "memory"
    assert "GiB" in found.explanation
    assert found.nearest is None


@pytest.mark.parametrize(
    ("work", "levels"),
    [
        ({"input_tokens": 8000, "output_tokens": 2}, ServiceLevels()),
        ({"input_tokens": 1024, "output_tokens": 256}, ServiceLevels()),
        ({"input_tokens": 1024, "output_tokens": 256}, ServiceLevels(ttft_ms=500, tokens_per_second=30)),
    ],
)
def test_an_overloaded_open_loop_says_what_it_could_carry(work: dict[str, int], levels: ServiceLevels) -> None:
    def at(rate: float) -> SimulationResult:
        group = H100.model_copy(update={"nodes": 1, "devices_per_node": 1})
        return simulate(ask(device_groups=[group], workload=Workload(**work, rate_per_s=rate), service_levels=levels))

    found = at(5000)
    assert found.binding_constraint == "throughput"
    said = re.search(r"about ([\d.,]+) of 5,000 requests/s can be carried\.", found.explanation)
    assert said, found.explanation
    rate = float(said[1].replace(",", ""))
    assert at(rate).feasible and not at(1.1 * rate).feasible


def test_a_load_that_no_rate_brings_within_the_limits_says_so() -> None:
    work = Workload(input_tokens=1024, output_tokens=256, rate_per_s=5000)
    found = simulate(ask(device_groups=[L40S], workload=work, service_levels=ServiceLevels(ttft_ms=0.01)))
    assert "can be carried, but not within the service levels" in found.explanation


def test_an_open_loop_is_served_as_it_arrives() -> None:
    work = Workload(input_tokens=1024, output_tokens=256, rate_per_s=3)
    best = simulate(ask(workload=work)).plans[0]
    assert best.predicted.requests_per_s == pytest.approx(3)


def test_blocked_configurations_never_come_back() -> None:
    first = simulate(ask(device_groups=[H100])).plans[0]
    rule = BlockedConfiguration(engine=first.engine, tp=first.tp, reason="crashed at start")
    for plan in simulate(ask(device_groups=[H100], blocked=[rule])).plans:
        assert (plan.engine, plan.tp) != (first.engine, first.tp)


def test_quantised_variants_only_when_allowed_and_with_a_note() -> None:
    shipped = simulate(ask(device_groups=[H100]))
    assert {plan.precision.weights for plan in shipped.plans} == {"bf16"}
    allowed = simulate(ask(device_groups=[H100], quantisation="allowed", max_plans=100))
    assert "fp8" in {plan.precision.weights for plan in allowed.plans}
    for plan in allowed.plans:
        if plan.precision.weights != "bf16":
            assert "evaluation" in plan.precision.quality_note or "checkpoint" in plan.precision.quality_note
        if plan.precision.weights == "fp8" and plan.engine == "vllm":
            assert "--quantization fp8" in plan.launch_command


def test_lora_takes_memory_and_shows_in_the_command() -> None:
    plain = simulate(ask(device_groups=[H100])).plans[0]
    adapted = simulate(ask(device_groups=[H100], lora=LoraSettings(adapters=4, rank=32), engines=["vllm"])).plans[0]
    assert plain.memory.lora_bytes == 0
    assert adapted.memory.lora_bytes > 0
    assert "--enable-lora --max-loras 4 --max-lora-rank 32" in adapted.launch_command


def test_shared_mode_grants_slices() -> None:
    small = ask(model="Qwen/Qwen3-0.6B", mode="shared", device_groups=[L40S.model_copy(update={"device_share": 0.5})],
                workload=Workload(input_tokens=256, output_tokens=64, concurrency=2),
                service_levels=ServiceLevels())  # fmt: skip
    best = simulate(small).plans[0]
    assert best.device_share in {0.25, 0.5}
    assert best.tp == 1
    whole = device("l40s").price_nanos_per_hour["on_demand"]
    assert best.price_nanos_per_device_hour == round(whole * best.device_share)
    assert best.memory.memory_bytes == int(device("l40s").memory_bytes * best.device_share)


@pytest.mark.parametrize("model", ["BAAI/bge-m3", "BAAI/bge-reranker-v2-m3", "Qwen/Qwen3-Embedding-0.6B"])
def test_embedding_and_reranking_models(model: str) -> None:
    request = SimulationRequest.for_class("embedding", model=model, device_groups=[L40S])
    best = simulate(request).plans[0]
    assert best.predicted.output_tokens_per_s == 0
    assert best.predicted.input_tokens_per_s > 1000
    assert best.cost_nanos_per_million_output_tokens is None
    assert "--runner pooling" in best.launch_command or best.engine != "vllm"
    peak = device("l40s").peak_flops["bf16"] * best.devices
    assert 2 * 3e8 * best.predicted.input_tokens_per_s * (0.1 if "0.6B" not in model else 1) < peak


@pytest.mark.parametrize("name", CLASSES)
def test_workload_classes_fill_in_everything(name: str) -> None:
    request = SimulationRequest.for_class(name, model="Qwen/Qwen3-8B", device_groups=[H100])
    assert request.service_levels.statistic == "p95"
    if name != "embedding":
        assert simulate(request).considered > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"workload": {"input_tokens": 10, "output_tokens": 10}},
        {"workload": {"input_tokens": 10, "output_tokens": 10, "concurrency": 1, "rate_per_s": 1}},
        {"workload": {"input_tokens": 0, "output_tokens": 10, "concurrency": 1}},
        {"service_levels": {"ttft_ms": -1}},
        {"device_groups": []},
        {"engines": []},
        {"surprise": 1},
        {"seed": -1},
    ],
)
def test_requests_are_validated(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ask(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "nobody/nothing"}, "not bundled"),
        ({"device_groups": [DeviceGroup(name="x", device="abacus")]}, "abacus"),
        ({"workload": Workload(input_tokens=200_000, output_tokens=1, concurrency=1)}, "takes 131,072"),
        ({"workload": Workload(input_tokens=20, output_tokens=0, concurrency=1)}, "output_tokens.*bge-m3"),
        ({"max_model_len": 10}, "need 1,280 tokens, but max_model_len admits 10;"),
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(fields: dict[str, object], words: str) -> None:
    with pytest.raises(SimulatorError, match=words):
        simulate(ask(**fields))


def test_more_replicas_than_the_devices_hold_are_named() -> None:
    group = H100.model_copy(update={"nodes": 1})
    found = simulate(ask(device_groups=[group], replicas=9))
    assert found.headline == "9 replicas of meta-llama/Llama-3.1-8B do not fit on this hardware"
    assert "holds at most 8" in found.explanation
    assert simulate(ask(device_groups=[group], replicas=8, service_levels=ServiceLevels())).feasible


def test_a_load_of_hardly_a_token_has_no_price_per_token() -> None:
    work = Workload(input_tokens=10, output_tokens=10, rate_per_s=1e-300)
    best = simulate(ask(device_groups=[H100], engines=["vllm"], workload=work, service_levels=ServiceLevels())).plans[0]
    assert best.cost_nanos_per_million_output_tokens is None and best.cost_nanos_per_hour > 0


@pytest.mark.parametrize("load", [{"concurrency": 64}, {"rate_per_s": 20.0}])
def test_vectors_are_predicted_as_they_are_searched(load: dict[str, Any]) -> None:
    work = Workload(input_tokens=512, output_tokens=0, **load)
    one = DeviceGroup(name="l4", device="l4", nodes=1, devices_per_node=1)
    asked = ask(
        model="BAAI/bge-m3", device_groups=[one], workload=work, engines=["vllm"], service_levels=ServiceLevels()
    )
    found = simulate(asked).plans[0].predicted
    kind = {"kind": "closed", **load} if "concurrency" in load else {"kind": "open", "rate": load["rate_per_s"]}
    row = {"model": "BAAI/bge-m3", "device": "l4", "isl": 512, "osl": 0, "load": kind}
    for same in (row, row | {"osl": 100}, row | {"osl": None}):
        [answer] = predict([parse(same)])
        assert answer.e2e_ms and answer.tpot_ms and answer.requests_per_s and not answer.in_domain
        assert answer.e2e_ms.p99 == pytest.approx(found.e2e_ms.p99, rel=1e-4)
        assert answer.requests_per_s == pytest.approx(found.requests_per_s, rel=1e-4)
        assert answer.tpot_ms.mean == answer.output_tokens_per_s == 0.0


def test_output_of_a_model_that_returns_vectors_is_ignored_with_a_note() -> None:
    def at(tokens: int) -> SimulationResult:
        work = Workload(input_tokens=500, output_tokens=tokens, rate_per_s=3)
        return simulate(ask(model="BAAI/bge-m3", device_groups=[L40S], workload=work, service_levels=ServiceLevels()))

    plain, asked = at(0), at(50)
    assert asked.plans == plain.plans
    assert [w for w in asked.warnings if w not in plain.warnings] == [
        "BAAI/bge-m3 writes no tokens: the 50 output tokens are ignored."
    ]


def test_fleets_carry_what_no_group_can() -> None:
    groups = [DeviceGroup(name="a", device="h100_sxm", nodes=1, devices_per_node=1),
              DeviceGroup(name="b", device="h100_sxm", nodes=1, devices_per_node=1)]  # fmt: skip
    levels = ServiceLevels(ttft_ms=20_000, tokens_per_second=20)

    def at(users: int) -> SimulationResult:
        work = Workload(input_tokens=1024, output_tokens=256, concurrency=users)
        return simulate(ask(device_groups=groups, workload=work, service_levels=levels))

    users = 16
    while at(users).feasible:
        users += 16
    found = at(users + 8)
    assert not found.feasible
    assert found.fleets
    fleet = found.fleets[0]
    assert {part.plan.device_group for part in fleet.parts} == {"a", "b"}
    assert sum(part.load for part in fleet.parts) == users + 8
    assert all(part.plan.meets_service_levels for part in fleet.parts)
    assert fleet.cost_nanos_per_hour == sum(part.plan.cost_nanos_per_hour for part in fleet.parts)


def test_real_fleets_match_the_exact_optimum() -> None:
    request = ask(workload=Workload(input_tokens=1024, output_tokens=256, concurrency=1000))
    found = options(request, resolve(request.model))
    slots = [Slot(tuple(kept[:4]), 5) for kept in found.values() if kept]
    problem = fleet_problem(slots, 500.0)
    assert 10_000 < math.prod(problem.sizes) < 500_000
    exact, genetic = enumerate_all(problem), evolve(problem, seed=5)
    assert genetic.feasible == exact.feasible
    assert genetic.scores.objectives[:, 0].min() <= exact.scores.objectives[:, 0].min() * 1.01


def test_a_chunk_beyond_the_prompt_is_not_tried_as_it_gains_nothing() -> None:
    request = ask(device_groups=[H100], engines=["vllm"])
    architecture = resolve(request.model)
    block = next(blocks(request, architecture))
    tried = {option.block.limits.chunk_tokens for option in options(request, architecture)["h100"]}
    assert tried == {2048}
    rows = [
        candidates(request, architecture, replace(block, limits=replace(block.limits, chunk_tokens=chunk)))
        for chunk in (2048, 8192, 16384)
    ]
    fits, *larger = [row for row in rows if row]
    for row in larger:
        for name in ("ttft_ms", "tpot_ms"):
            best, other = (getattr(r.predicted.outcome, name).mean for r in (fits, row))
            assert (best <= other * (1 + 1e-9)).all()
        assert all(a.free_kv_bytes >= b.free_kv_bytes for a, b in zip(fits.budgets, row.budgets, strict=True))


def test_a_chunk_below_the_prompt_is_tried() -> None:
    request = ask(device_groups=[H100], workload=Workload(input_tokens=4000, output_tokens=100, concurrency=64))
    found = options(request, resolve(request.model))["h100"]
    assert {option.block.limits.chunk_tokens for option in found} == {2048, 8192}


def test_node_configurations_list_what_is_valid() -> None:
    found = node_configurations(ask(model="meta-llama/Llama-3.1-70B", device_groups=[H100], engines=["vllm"]))
    by_layout = {(item.tp, item.pp): item for item in found}
    assert not by_layout[(1, 1)].fits
    assert "weights need" in by_layout[(1, 1)].reason
    assert by_layout[(4, 1)].fits
    assert by_layout[(4, 1)].max_replicas == 4
    assert by_layout[(8, 2)].max_replicas == 1
    assert (3, 1) not in by_layout
    assert "--tensor-parallel-size 4" in by_layout[(4, 1)].launch_command
    assert "--max-concurrency 64 " in by_layout[(8, 1)].benchmark_command and not by_layout[(1, 1)].benchmark_command


def test_models_that_return_vectors_have_no_token_benchmark() -> None:
    one = DeviceGroup(name="l4", device="l4", nodes=1, devices_per_node=1)
    [found] = node_configurations(ask(model="BAAI/bge-m3", device_groups=[one], engines=["vllm"]))
    assert "--runner pooling" in found.launch_command and found.benchmark_command == ""


def test_recommendations_cover_every_model() -> None:
    found = recommend(["Qwen/Qwen3-0.6B", "nobody/nothing", "deepseek-ai/DeepSeek-V3"], [L40S, A100], "chat")
    assert [item.model for item in found] == ["Qwen/Qwen3-0.6B", "nobody/nothing", "deepseek-ai/DeepSeek-V3"]
    assert found[0].best is not None
    assert found[1].error
    assert found[2].best is None


def test_layouts_respect_heads_experts_and_nodes() -> None:
    span = Span(device("h100_sxm"), 2, 8)
    llama = resolve("meta-llama/Llama-3.1-70B")
    assert {layout.tp for layout in layouts(llama, span, Precision(), "vllm")} == {1, 2, 4, 8}
    assert not tp_divides(resolve("Qwen/Qwen2.5-7B-Instruct"), 8)
    fp8 = resolve("Qwen/Qwen3-235B-A22B-FP8")
    eight = [item for item in layouts(fp8, span, fp8.checkpoint_precision, "vllm") if item.tp == 8 and item.dp == 1]
    assert all(item.ep > 1 for item in eight), "1536 / 8 columns are not whole fp8 blocks: only whole experts fit"


@settings(max_examples=200, deadline=None)
@given(nodes=st.integers(1, 16), each=st.integers(1, 8), devices=st.integers(1, 128), tp=st.sampled_from([1, 2, 4, 8]))
def test_replicas_never_exceed_the_devices(nodes: int, each: int, devices: int, tp: int) -> None:
    count = replicas_that_fit(Span(device("h100_sxm"), nodes, each), devices, tp)
    assert 0 <= count * devices <= nodes * each


def test_a_rack_of_nvlink_is_one_domain() -> None:
    rack = Span(device("gb200"), 18, 4)
    assert rack.link_width == 72
    assert any(layout.tp == 8 for layout in layouts(resolve("meta-llama/Llama-3.1-70B"), rack, Precision(), "vllm"))


def test_prefill_and_decode_apart() -> None:
    work = Workload(input_tokens=4096, output_tokens=256, concurrency=128)
    levels = ServiceLevels(ttft_ms=1000, tokens_per_second=60)
    request = ask(device_groups=[H100], workload=work, service_levels=levels, mixed=True)
    apart = [fleet for fleet in simulate(request).fleets if fleet.parts[0].role == "prefill"]
    assert apart
    for fleet in apart:
        assert [part.role for part in fleet.parts] == ["prefill", "decode"]
        assert fleet.devices <= H100.devices
        assert fleet.cost_nanos_per_hour == sum(part.plan.cost_nanos_per_hour for part in fleet.parts)
        for part in fleet.parts:
            assert part.plan.meets_service_levels
            assert not part.plan.in_domain
            for spread in (part.plan.predicted.ttft_ms, part.plan.predicted.tpot_ms, part.plan.predicted.e2e_ms):
                assert spread.lo < spread.p50 <= spread.p95 < spread.p99 < spread.hi
            wanted = "--kv-transfer-config" if part.plan.engine == "vllm" else f"--disaggregation-mode {part.role}"
            assert wanted in part.plan.launch_command


@pytest.mark.parametrize("statistic", ["mean", "p99"])
def test_the_cheapest_split_is_that_of_brute_force(statistic: Statistic) -> None:
    work = Workload(input_tokens=4096, output_tokens=256, concurrency=128)
    levels = ServiceLevels(ttft_ms=1000, tokens_per_second=60, statistic=statistic)
    request = ask(device_groups=[H100], engines=["vllm"], workload=work, service_levels=levels)
    architecture = resolve(request.model)
    costs = []
    for block in blocks(request, architecture):
        tables = stagewise(request, architecture, block)
        assert tables is not None
        sides = [(place, n) for place, most in enumerate(tables.most.astype(int)) for n in range(most)]
        split = np.array([(*prefill, *decode) for prefill in sides for decode in sides])
        state = steady(request, tables, split)
        met = (state.excess <= 0) & (state.devices <= H100.devices)
        costs += (state.devices[met] * block.price_nanos_per_hour).tolist()
    assert costs
    assert disaggregated(request, architecture)[0].cost_nanos_per_hour == min(costs)


def test_splitting_conserves_users() -> None:
    """Little's law: requests in the system are the users."""
    request = ask(device_groups=[H100], workload=Workload(input_tokens=2048, output_tokens=256, concurrency=96))
    architecture = resolve(request.model)
    tables = stagewise(request, architecture, next(blocks(request, architecture)))
    assert tables is not None
    genomes = np.array([[0, 3, 1, 0], [1, 0, 0, 3]])
    state = steady(request, tables, genomes)
    assert state.rate * state.e2e_s == pytest.approx([96.0, 96.0], rel=0.02)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_whatever_is_asked_no_plan_breaks_its_promise(data: st.DataObject) -> None:
    names = st.sampled_from(["h100_sxm", "a100_sxm", "l40s", "mi300x", "b200_sxm", "xeon_6767p", "t4", "gaudi3"])
    groups = [
        DeviceGroup(name=f"g{place}", device=name, nodes=data.draw(st.integers(1, 4)), devices_per_node=each)
        for place, (name, each) in enumerate(
            data.draw(st.lists(st.tuples(names, st.integers(1, 8)), min_size=1, max_size=3))
        )
    ]
    load: dict[str, Any] = data.draw(st.sampled_from([{"concurrency": 1}, {"concurrency": 37}, {"rate_per_s": 2.5}]))
    request = ask(
        model=data.draw(st.sampled_from(["Qwen/Qwen3-8B", "openai/gpt-oss-120b", "google/gemma-3-27b-it",
                                         "deepseek-ai/DeepSeek-V2-Lite", "ai21labs/Jamba-v0.1"])),
        device_groups=groups,
        workload=Workload(input_tokens=data.draw(st.integers(1, 4000)), output_tokens=data.draw(st.integers(1, 900)),
                          **load),
        service_levels=ServiceLevels(
            ttft_ms=data.draw(st.none() | st.floats(50, 20_000)),
            tokens_per_second=data.draw(st.none() | st.floats(1, 200)),
            e2e_ms=data.draw(st.none() | st.floats(500, 100_000)),
            statistic=data.draw(st.sampled_from(["mean", "p50", "p95", "p99"])),
        ),
        quantisation=data.draw(st.sampled_from(["as_shipped", "allowed"])),
    )  # fmt: skip
    found = simulate(request)
    assert found.feasible == bool(found.plans)
    levels, capacity = request.service_levels, {group.name: group.devices for group in groups}
    for plan in found.plans:
        assert plan.devices <= capacity[plan.device_group]
        ttft, tpot, e2e = (
            promised(spread, levels.statistic)
            for spread in (plan.predicted.ttft_ms, plan.predicted.tpot_ms, plan.predicted.e2e_ms)
        )
        assert levels.ttft_ms is None or ttft <= levels.ttft_ms * 1.001 + 0.001
        assert levels.e2e_ms is None or e2e <= levels.e2e_ms * 1.001 + 0.001
        if levels.tokens_per_second and request.workload.output_tokens > 1:
            assert tpot <= 1000 / levels.tokens_per_second * 1.001 + 0.001
    if not found.feasible:
        assert found.binding_constraint in {"ttft", "tokens_per_second", "e2e", "throughput", "memory"}
        assert found.explanation.endswith(".")

"""The event model: nothing lost, limits kept, and the closed form recovered where it must agree."""

import pytest
from foundry_sim.facts.architecture import resolve
from foundry_sim.facts.devices import device
from foundry_sim.facts.precision import Precision
from foundry_sim.physics.latencies import simulate
from foundry_sim.physics.scheduler import Limits, Scheduler, Workload
from foundry_sim.physics.step import Setup, StepModel
from foundry_sim.physics.step_table import StepTable
from hypothesis import given, settings
from hypothesis import strategies as st

PRECISION = Precision("fp8", "fp8", "bf16")
MODEL = StepModel(Setup(resolve("meta-llama/Llama-3.1-8B"), device("h100_sxm"), "vllm", None, None, PRECISION))
TABLE = StepTable(MODEL)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 400)), min_size=1, max_size=60),
    concurrency=st.integers(1, 40),
    kv_tokens=st.integers(4000, 60_000),
    chunk_tokens=st.sampled_from([256, 2048, 8192]),
)
def test_every_request_ends_once_and_the_cache_is_returned(
    lengths: list[tuple[int, int]], concurrency: int, kv_tokens: int, chunk_tokens: int
) -> None:
    workload = Workload([p for p, _ in lengths], [o for _, o in lengths], concurrency)
    scheduler = Scheduler(TABLE, Limits(kv_tokens, 32, chunk_tokens), workload)
    done = scheduler.run()
    assert all(r.arrived_s <= r.first_s <= r.done_s for r in done)
    assert all(r.done_s >= 0 for r in done)
    assert scheduler.state.cached == 0
    assert not scheduler.state.running


def test_one_client_sees_prefill_then_decode() -> None:
    result = simulate(MODEL, Limits(1_000_000), Workload([1000] * 5, [200] * 5, concurrency=1))
    assert result.ttft_ms.mean == pytest.approx(float(MODEL.prefill_ms(1000)), rel=0.1)
    assert result.tpot_ms.mean == pytest.approx(float(MODEL.decode_ms(1, 1100)), rel=0.05)
    assert result.completed == 5


def test_start_burst_makes_the_mean_of_ttft_larger_than_its_median() -> None:
    workload = Workload([1000] * 640, [100 + i % 37 for i in range(640)], concurrency=64)
    result = simulate(MODEL, Limits(1_000_000), workload)
    assert result.ttft_ms.mean > 1.1 * result.ttft_ms.p50
    assert result.ttft_ms.p99 > result.ttft_ms.p95 > result.ttft_ms.p50


def test_small_cache_preempts_and_serves_fewer() -> None:
    workload = Workload([500] * 64, [500] * 64, concurrency=64)
    wide, narrow = (simulate(MODEL, Limits(tokens), workload) for tokens in (1_000_000, 20_000))
    assert narrow.output_tokens_per_s < wide.output_tokens_per_s
    assert narrow.preemptions > 0 == wide.preemptions
    assert narrow.completed == wide.completed == 64


def test_gaps_between_tokens_hold_the_wait_of_evicted_requests() -> None:
    workload = Workload([500] * 64, [500] * 64, concurrency=64)
    crowded = simulate(MODEL, Limits(20_000), workload)
    assert crowded.preemptions > 0
    assert crowded.itl_ms.mean == pytest.approx(crowded.tpot_ms.mean)  # equal answers: all gaps weigh alike


def test_open_loop_beyond_capacity_lets_the_queue_grow_and_goodput_fall() -> None:
    def at(rate: float) -> float:
        arrivals = [i / rate for i in range(400)]
        workload = Workload([1000] * 400, [200] * 400, arrival_s=arrivals)
        return simulate(MODEL, Limits(100_000), workload, ttft_ms=500).goodput_requests_per_s / rate

    assert at(1.0) > 0.95
    assert at(500.0) < 0.1


def test_a_request_larger_than_the_cache_is_refused_not_waited_for() -> None:
    result = simulate(MODEL, Limits(1000), Workload([5000, 100], [10, 10], concurrency=1))
    assert result.completed == 1


def test_slower_steps_scale_every_latency() -> None:
    workload = Workload([800] * 50, [100] * 50, concurrency=8)
    plain, slow = simulate(MODEL, Limits(10**6), workload), simulate(MODEL, Limits(10**6), workload, scale=2.0)
    assert slow.e2e_ms.mean == pytest.approx(2 * plain.e2e_ms.mean, rel=1e-6)

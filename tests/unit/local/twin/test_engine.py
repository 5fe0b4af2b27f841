"""The loop on a virtual clock: what clients see is what the step model says, without any real waiting."""

import asyncio

import pytest
from foundry_local.twin.batching import Sequence
from foundry_local.twin.clock import VirtualClock
from foundry_local.twin.engine import Ticket, TwinEngine
from foundry_local.twin.metrics import EngineMetrics, Histogram, one_two_five
from foundry_local.twin.timing import EngineModel


def model(step_ms: object = None, blocks: int = 10_000, seqs: int = 256) -> EngineModel:
    step = step_ms or (lambda prefill, decoding, context: 5.0 + prefill * 0.01 + decoding * 0.1)
    return EngineModel("m", "h100_sxm", step, blocks, 16, 4096, seqs, 2048)  # type: ignore[arg-type]


async def finish(clock: VirtualClock, tickets: list[Ticket], limit_s: float = 60.0) -> None:
    for _ in range(int(limit_s / 0.01)):
        if all(ticket.sequence.finished for ticket in tickets):
            return
        await clock.advance(0.01)
    raise AssertionError("not finished in time")


async def test_times_are_exactly_the_predicted_ones_without_noise() -> None:
    clock = VirtualClock()
    engine = TwinEngine(model(), clock=clock, noise_sigma=0.0)
    engine.start()
    ticket = engine.submit(Sequence(1000, 101))
    await finish(clock, [ticket])
    sequence = ticket.sequence
    assert sequence.first_token == pytest.approx((5.0 + 10.0) / 1000)
    assert sequence.last_token - sequence.first_token == pytest.approx(100 * 5.1 / 1000)
    await engine.stop()


async def test_mean_time_with_noise_is_the_predicted_one() -> None:
    clock = VirtualClock()
    engine = TwinEngine(model(lambda *_: 10.0), clock=clock, seed=3)
    engine.start()
    ticket = engine.submit(Sequence(10, 2001))
    await finish(clock, [ticket])
    tpot_ms = (ticket.sequence.last_token - (ticket.sequence.first_token or 0)) / 2000 * 1000
    assert tpot_ms == pytest.approx(10.0, rel=0.005) and tpot_ms != 10.0
    await engine.stop()


async def test_the_same_seed_gives_the_same_times() -> None:
    ends = []
    for _ in range(2):
        clock = VirtualClock()
        engine = TwinEngine(model(), clock=clock, seed=11)
        engine.start()
        ticket = engine.submit(Sequence(100, 50))
        await finish(clock, [ticket])
        ends.append(ticket.sequence.last_token)
        await engine.stop()
    assert ends[0] == ends[1]


async def test_sequences_share_steps() -> None:
    clock = VirtualClock()
    engine = TwinEngine(model(), clock=clock, noise_sigma=0.0)
    engine.start()
    tickets = [engine.submit(Sequence(10, 11)) for _ in range(8)]
    await finish(clock, tickets)
    ends = {round(ticket.sequence.last_token, 9) for ticket in tickets}
    # One step with all eight prompts, then ten steps of eight.
    assert ends == {round((5.0 + 0.8 + 10 * 5.8) / 1000, 9)}
    assert engine.metrics.iteration_tokens.count == 11
    await engine.stop()


async def test_no_more_tokens_after_an_abort_and_the_others_go_on() -> None:
    clock = VirtualClock()
    engine = TwinEngine(model(), clock=clock, noise_sigma=0.0)
    engine.start()
    leaving, staying = engine.submit(Sequence(10, 1000)), engine.submit(Sequence(10, 50))
    await clock.advance(0.1)
    produced = leaving.sequence.produced
    engine.abort(leaving.sequence)
    assert produced > 5 and engine.metrics.running == 1
    await finish(clock, [staying])
    assert leaving.sequence.produced == produced
    assert staying.sequence.produced == 50
    assert engine.metrics.finished == {"stop": 0, "length": 1, "abort": 1, "error": 0, "repetition": 0}
    assert engine.metrics.kv_cache_usage == 0
    await engine.stop()


async def test_a_waiting_client_is_woken_when_the_engine_stops() -> None:
    engine = TwinEngine(model(lambda *_: 1e6), clock=VirtualClock())
    engine.start()
    ticket = engine.submit(Sequence(10, 10))
    waiting = asyncio.ensure_future(ticket.wait_beyond(0))
    await asyncio.sleep(0)
    await engine.stop()
    await asyncio.wait_for(waiting, 1)
    assert ticket.sequence.finished == "abort"


async def test_natural_end_and_window_end() -> None:
    clock = VirtualClock()
    engine = TwinEngine(model(), clock=clock, noise_sigma=0.0)
    engine.start()
    natural = engine.submit(Sequence(10, 1000, natural_tokens=7))
    window = engine.submit(Sequence(4090, 1000))
    await finish(clock, [natural, window])
    assert (natural.sequence.finished, natural.sequence.produced) == ("stop", 7)
    assert (window.sequence.finished, window.sequence.produced) == ("length", 6)
    await engine.stop()


async def test_metrics_add_up() -> None:
    clock = VirtualClock()
    engine = TwinEngine(model(), clock=clock, noise_sigma=0.0)
    engine.start()
    await finish(clock, [engine.submit(Sequence(100, 11)) for _ in range(5)])
    metrics = engine.metrics
    assert (metrics.prompt_tokens, metrics.generation_tokens) == (500, 55)
    assert (metrics.ttft.count, metrics.itl.count, metrics.e2e.count, metrics.tpot.count) == (5, 50, 5, 5)
    whole = metrics.queue.total + metrics.prefill.total + metrics.decode.total
    assert metrics.e2e.total == pytest.approx(whole)
    assert metrics.tpot.total / 5 == pytest.approx(metrics.itl.total / 50)
    await engine.stop()


def test_histogram_buckets_are_cumulative_in_the_exposition() -> None:
    metrics = EngineMetrics('a"b', 100, 0.0)
    for value in (0.0005, 0.001, 0.3, 9999.0):
        metrics.ttft.observe(value)
    text = metrics.render({"block_size": "16"})
    lines = [line for line in text.splitlines() if line.startswith("vllm:time_to_first_token_seconds_bucket")]
    counts = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert counts == sorted(counts) and counts[0] == 2.0 and counts[-1] == 4.0
    assert 'le="+Inf"' in lines[-1] and 'model_name="a\\"b"' in lines[0]
    assert "vllm:cache_config_info{" in text


def test_buckets() -> None:
    assert one_two_five(100) == (1, 2, 5, 10, 20, 50, 100)
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    assert histogram.counts == [1, 0, 0], "the upper bound belongs to the bucket"


class LateClock(VirtualClock):
    """Wakes every sleeper a little late, as a busy process does."""

    async def sleep_until(self, when: float) -> None:
        await super().sleep_until(when + 0.0015)


async def test_waking_late_does_not_add_up() -> None:
    clock = LateClock()
    engine = TwinEngine(model(lambda *_: 5.0), clock=clock, noise_sigma=0.0)
    engine.start()
    ticket = engine.submit(Sequence(10, 201))
    await finish(clock, [ticket])
    assert ticket.sequence.last_token == pytest.approx(201 * 5.0 / 1000)
    assert clock.now() < 1.05
    await engine.stop()

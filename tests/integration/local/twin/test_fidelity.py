"""The closed loop: what a load measures on a twin is what the simulator's step times say it should be."""

import asyncio
from statistics import mean
from typing import Any

import pytest
from foundry_local.twin import model_for, parse_options
from foundry_local.twin.batching import Batcher, Sequence
from foundry_local.twin.clock import VirtualClock
from foundry_local.twin.engine import TwinEngine
from foundry_local.twin.timing import EngineModel
from foundry_sim.facts.architecture import names

PROMPT, OUTPUT, USERS, ROUNDS = 1024, 256, 64, 3


@pytest.fixture(scope="module")
def model() -> EngineModel:
    name = next(item for item in names() if item == "Qwen/Qwen3-8B")
    options = parse_options(["--model", name, "--max-model-len", "8192", "--max-num-seqs", "256"])
    return model_for(options, "NVIDIA-H100-80GB-HBM3", None)


def reference(model: EngineModel) -> tuple[float, float]:
    """Mean TTFT and TPOT in ms of the same closed loop, computed from the step times alone, without engine or clock.

    A user's next request arrives while the next step is already running, as it does over a network.
    """
    batcher = Batcher(model.kv_blocks, model.block_tokens, model.max_num_seqs, model.max_num_batched_tokens)
    now, ttft, tpot = 0.0, [], []
    left = {user: ROUNDS for user in range(USERS)}
    owner: dict[Sequence, int] = {}
    arriving: list[int] = []

    def send(user: int) -> None:
        left[user] -= 1
        sequence = Sequence(PROMPT, OUTPUT, arrived=now)
        owner[sequence] = user
        batcher.add(sequence)

    for user in range(USERS):
        send(user)
    while batcher.running or batcher.waiting or arriving:
        step = batcher.plan()
        while arriving:
            send(arriving.pop(0))
        now += model.step_ms(step.prefill_tokens, step.decoding, step.mean_context)
        for sequence in batcher.complete(step):
            if sequence.produced == 1:
                sequence.first_token = now
                ttft.append(now - sequence.arrived)
            if sequence.produced == OUTPUT:
                tpot.append((now - (sequence.first_token or 0)) / (OUTPUT - 1))
                batcher.finish(sequence, "length")
                if left[owner[sequence]]:
                    arriving.append(owner[sequence])
    return mean(ttft), mean(tpot)


async def measure(model: EngineModel) -> tuple[float, float, Any]:
    clock = VirtualClock()
    engine = TwinEngine(model, clock=clock, seed=1)
    engine.start()

    async def user() -> list[Sequence]:
        done = []
        for _ in range(ROUNDS):
            ticket = engine.submit(Sequence(PROMPT, OUTPUT))
            await ticket.wait_beyond(OUTPUT - 1)
            done.append(ticket.sequence)
        return done

    users = [asyncio.ensure_future(user()) for _ in range(USERS)]
    while not all(task.done() for task in users):
        await clock.advance(0.05)
    sequences = [sequence for task in users for sequence in task.result()]
    await engine.stop()
    ttft = mean((item.first_token or 0) - item.arrived for item in sequences) * 1000
    tpot = mean((item.last_token - (item.first_token or 0)) / (OUTPUT - 1) for item in sequences) * 1000
    return ttft, tpot, engine.metrics


async def test_a_closed_loop_measures_the_predicted_times(model: EngineModel) -> None:
    expected_ttft, expected_tpot = reference(model)
    ttft, tpot, metrics = await measure(model)
    assert tpot == pytest.approx(expected_tpot, rel=0.02)
    assert ttft == pytest.approx(expected_ttft, rel=0.05)
    assert metrics.generation_tokens == USERS * ROUNDS * OUTPUT and metrics.preemptions == 0
    assert metrics.ttft.total / metrics.ttft.count * 1000 == pytest.approx(ttft)
    # Plausible for an 8B model in 16 bit on one H100: weights alone take 5 ms of bandwidth.
    assert 6 < tpot < 30

"""The batching loop on a clock: each iteration takes the time that the simulator predicts, with a little noise."""

import asyncio
import logging
import math
import random

from foundry_local.twin.batching import FINISH_ABORT, FINISH_LENGTH, FINISH_STOP, Batcher, Sequence, Step
from foundry_local.twin.clock import Clock, RealClock
from foundry_local.twin.metrics import EngineMetrics
from foundry_local.twin.timing import EngineModel

logger = logging.getLogger(__name__)

NOISE_SIGMA = 0.02
# Behind schedule by more than this (a starved process), the engine's time restarts from now instead of catching up.
MAX_LAG_S = 0.25


class Ticket:
    """One sequence in flight, for whoever streams it: wait, then read how far it is."""

    __slots__ = ("_waiter", "sequence")

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self._waiter: asyncio.Future[None] | None = None

    async def wait_beyond(self, seen: int) -> None:
        """Return once more than `seen` tokens exist or the sequence has finished."""
        while self.sequence.produced <= seen and self.sequence.finished is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TwinEngine:
    """Runs one `EngineModel`. Submit, follow the ticket, abort when nobody listens any more."""

    def __init__(
        self,
        model: EngineModel,
        *,
        clock: Clock | None = None,
        seed: int = 0,
        noise_sigma: float = NOISE_SIGMA,
        prefix_caching: bool = True,
    ) -> None:
        self.model = model
        self.clock = clock or RealClock()
        self.prefix_caching = prefix_caching
        self.batcher = Batcher(model.kv_blocks, model.block_tokens, model.max_num_seqs, model.max_num_batched_tokens)
        self.metrics = EngineMetrics(model.name, model.max_model_len, 0.0)
        self._random = random.Random(seed)  # noqa: S311 (timing noise, no secret)
        self._sigma = noise_sigma
        self._tickets: dict[Sequence, Ticket] = {}
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"twin {self.model.name}")

    async def stop(self) -> None:
        """End the loop; everything in flight finishes as aborted."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for sequence in list(self._tickets):
            self.abort(sequence)

    def submit(self, sequence: Sequence) -> Ticket:
        """Queue a sequence; its arrival is now."""
        sequence.arrived = self.clock.now()
        ticket = Ticket(sequence)
        self._tickets[sequence] = ticket
        self.batcher.add(sequence)
        self._update_gauges()
        self._work.set()
        return ticket

    def abort(self, sequence: Sequence) -> None:
        """The client has left: the sequence leaves the batch and its blocks are free at once."""
        self._finish(sequence, FINISH_ABORT)

    def stop_sequence(self, sequence: Sequence) -> None:
        """A stop string has appeared in the text."""
        self._finish(sequence, FINISH_STOP)

    async def _run(self) -> None:
        ready_at = self.clock.now()
        while True:
            step = self.batcher.plan()
            if not step.work:
                self._work.clear()
                if not self.batcher.waiting:
                    await self._work.wait()
                    ready_at = self.clock.now()
                    continue
                # Cannot happen while requests that never fit are refused; never spin if it does.
                self._refuse_head()
                continue
            ready_at = await self._execute(step, ready_at)

    async def _execute(self, step: Step, started: float) -> float:
        """Run one step; returns its end, from which the next step's time counts, so that no drift adds up."""
        now = self.clock.now()
        if now - started > MAX_LAG_S:
            started = now
        for sequence in step.admitted:
            sequence.admitted = sequence.admitted or started
            self._count_prefix(sequence)
        self.metrics.preemptions += step.preempted
        self._update_gauges()
        milliseconds = self.model.step_ms(step.prefill_tokens, step.decoding, step.mean_context)
        end = started + milliseconds / 1000 * self._noise()
        await self.clock.sleep_until(end)
        self._deliver(step, end)
        return end

    def _noise(self) -> float:
        if not self._sigma:
            return 1.0
        return math.exp(self._random.gauss(-(self._sigma**2) / 2, self._sigma))

    def _count_prefix(self, sequence: Sequence) -> None:
        if self.prefix_caching and not sequence.produced:
            self.metrics.prefix_queries += sequence.prompt_tokens
            self.metrics.prefix_hits += sequence.cached

    def _deliver(self, step: Step, now: float) -> None:
        metrics = self.metrics
        producers = self.batcher.complete(step)
        metrics.iteration_tokens.observe(step.prefill_tokens + len(producers))
        metrics.generation_tokens += len(producers)
        for sequence in producers:
            if sequence.first_token is None:
                sequence.first_token = now
                metrics.prompt_tokens += sequence.prompt_tokens
                metrics.ttft.observe(now - sequence.arrived)
            else:
                metrics.itl.observe(now - sequence.last_token)
            sequence.last_token = now
            self._check_end(sequence)
            if ticket := self._tickets.get(sequence):
                ticket.wake()
        self._update_gauges()

    def _check_end(self, sequence: Sequence) -> None:
        if sequence.natural_tokens is not None and sequence.produced >= sequence.natural_tokens:
            self._finish(sequence, FINISH_STOP)
        elif sequence.produced >= sequence.max_tokens or sequence.tokens >= self.model.max_model_len:
            self._finish(sequence, FINISH_LENGTH)

    def _finish(self, sequence: Sequence, reason: str) -> None:
        if sequence.finished:
            return
        self.batcher.finish(sequence, reason)
        self._observe(sequence, reason)
        ticket = self._tickets.pop(sequence, None)
        if ticket is not None:
            ticket.wake()
        self._update_gauges()

    def _observe(self, sequence: Sequence, reason: str) -> None:
        metrics, now = self.metrics, self.clock.now()
        metrics.finished[reason] += 1
        metrics.e2e.observe(max(now, sequence.last_token) - sequence.arrived)
        metrics.request_prompt_tokens.observe(sequence.prompt_tokens)
        metrics.request_generation_tokens.observe(sequence.produced)
        metrics.request_max_tokens.observe(sequence.max_tokens)
        metrics.request_max_generation.observe(sequence.max_tokens)
        metrics.request_n.observe(1)
        if sequence.admitted is None or sequence.first_token is None:
            return
        metrics.queue.observe(sequence.admitted - sequence.arrived)
        metrics.prefill.observe(sequence.first_token - sequence.admitted)
        metrics.decode.observe(sequence.last_token - sequence.first_token)
        metrics.inference.observe(sequence.last_token - sequence.admitted)
        if sequence.produced > 1:
            metrics.tpot.observe((sequence.last_token - sequence.first_token) / (sequence.produced - 1))

    def _refuse_head(self) -> None:
        sequence = self.batcher.waiting[0]
        logger.error("twin %s: a request of %d tokens can never run", self.model.name, sequence.tokens)
        self._finish(sequence, FINISH_ABORT)

    def _update_gauges(self) -> None:
        self.metrics.running = len(self.batcher.running)
        self.metrics.waiting = len(self.batcher.waiting)
        self.metrics.kv_cache_usage = self.batcher.usage

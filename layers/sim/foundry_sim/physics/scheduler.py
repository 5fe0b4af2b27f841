"""Continuous batching, event by event: chunked prefill, cache admission, preemption, closed and open load.

Between two events (an arrival, a finished prompt, a finished answer) every running sequence only decodes, so those
steps are taken at once; a run costs a few events per request, not one per token. Step times come from a small grid of
the closed form, so any correction of the step model carries over.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from foundry_sim.physics.step import StepModel
from foundry_sim.physics.terms import Array

_CONTEXTS = (16, 256, 1024, 4096, 16_384, 65_536, 262_144)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_CHUNKS = (0, 64, 256, 1024, 4096, 16_384)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine admits, whole instance: cached tokens, running sequences, prompt tokens per step."""

    kv_tokens: int
    max_sequences: int = 256
    chunk_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival. `arrival_s` empty means a closed loop of `concurrency` clients."""

    prompt_tokens: Sequence[int]
    output_tokens: Sequence[int]
    concurrency: int = 0
    arrival_s: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Result:
    """Latencies in ms over completed requests; goodput counts only requests within both service levels."""

    ttft_ms: Summary
    itl_ms: Summary
    tpot_ms: Summary
    e2e_ms: Summary
    output_tokens_per_s: float
    requests_per_s: float
    goodput_requests_per_s: float
    preemptions: int
    completed: int


class StepTable:
    """Seconds of a step, interpolated in log-spaced batch, context and prompt tokens; `scale` corrects all of them."""

    def __init__(self, model: StepModel, scale: float = 1.0) -> None:
        batch, context = np.array(_BATCHES, float), np.array(_CONTEXTS, float)
        self._log_batch, self._log_context = np.log(batch), np.log(context)
        self._log_chunk = np.log1p(np.array(_CHUNKS, float))
        self._decode = model.decode_ms(batch[:, None], context[None, :]) * scale / 1e3
        chunks = np.array(_CHUNKS, float)[:, None]
        mixed = model.step_ms(chunks, batch[None, :], 1024.0)
        self._prefill = (mixed - mixed[0]) * scale / 1e3
        self._alone = model.prefill_ms(np.maximum(chunks[:, 0], 1.0)) * scale / 1e3

    def decode_s(self, batch: int, context: float) -> float:
        return _bilinear(self._decode, self._log_batch, np.log(batch), self._log_context, np.log(max(context, 1.0)))

    def mixed_s(self, prompt_tokens: int, batch: int, context: float) -> float:
        at = np.log1p(prompt_tokens)
        if batch == 0:
            return float(np.interp(at, self._log_chunk, self._alone))
        extra = _bilinear(self._prefill, self._log_chunk, at, self._log_batch, np.log(batch))
        return self.decode_s(batch, context) + extra


def _bilinear(grid: Array, rows: Array, row: float, columns: Array, column: float) -> float:
    i, u = _place(rows, row)
    j, v = _place(columns, column)
    low = grid[i, j] * (1 - v) + grid[i, j + 1] * v
    high = grid[i + 1, j] * (1 - v) + grid[i + 1, j + 1] * v
    return float(low * (1 - u) + high * u)


def _place(axis: Array, value: float) -> tuple[int, float]:
    i = min(max(int(np.searchsorted(axis, value)) - 1, 0), len(axis) - 2)
    return i, float(min(max((value - axis[i]) / (axis[i + 1] - axis[i]), 0.0), 1.0))


@dataclass(slots=True)
class _Request:
    number: int
    prompt: int
    output: int
    arrived_s: float
    pending: int = 0  # prompt tokens not yet processed
    produced: int = 0
    first_s: float = -1.0
    done_s: float = -1.0
    joined_at: int = 0  # decode clock when it joined the running batch


@dataclass(slots=True)
class _State:
    now_s: float = 0.0
    clock: int = 0  # decode steps taken
    cached: int = 0
    waiting: deque[_Request] = field(default_factory=deque)
    prefilling: deque[_Request] = field(default_factory=deque)
    running: dict[int, _Request] = field(default_factory=dict)
    finishing: list[tuple[int, int]] = field(default_factory=list)  # (clock, request number), stale entries skipped
    gaps: list[tuple[float, int]] = field(default_factory=list)  # (seconds per token, tokens)
    preemptions: int = 0


class Scheduler:
    """One engine instance serving one workload."""

    def __init__(self, steps: StepTable, limits: Limits, workload: Workload) -> None:
        self._steps, self._limits, self._workload = steps, limits, workload
        self._requests = [
            _Request(n, max(1, p), max(1, o), 0.0)
            for n, (p, o) in enumerate(zip(workload.prompt_tokens, workload.output_tokens, strict=True))
        ]
        self._next = 0
        self._state = _State()

    def run(self) -> list[_Request]:
        """Serve everything; requests larger than the whole cache are refused and stay unfinished."""
        self._start()
        while self._next < len(self._requests) or self._busy():
            self._admit()
            if self._state.prefilling:
                self._mixed_step()
            elif self._state.running:
                self._decode_steps()
            elif not self._skip_to_arrival():
                break
        return self._requests

    @property
    def state(self) -> _State:
        return self._state

    def _busy(self) -> bool:
        return bool(self._state.waiting or self._state.prefilling or self._state.running)

    def _start(self) -> None:
        if self._workload.arrival_s:
            for request, when in zip(self._requests, self._workload.arrival_s, strict=True):
                request.arrived_s = when
        else:
            for _ in range(min(self._workload.concurrency, len(self._requests))):
                self._submit()

    def _submit(self) -> None:
        """A closed-loop client sends its next request."""
        if self._workload.arrival_s or self._next >= len(self._requests):
            return
        request = self._requests[self._next]
        request.arrived_s = self._state.now_s
        self._next += 1
        self._state.waiting.append(request)

    def _arrive(self) -> None:
        """Open-loop requests whose time has come join the queue."""
        while self._workload.arrival_s and self._next < len(self._requests):
            if self._requests[self._next].arrived_s > self._state.now_s:
                return
            self._state.waiting.append(self._requests[self._next])
            self._next += 1

    def _skip_to_arrival(self) -> bool:
        if self._state.waiting:  # nothing runs, yet its head does not fit: it never will
            self._state.waiting.popleft()
            self._submit()
            return True
        if not self._workload.arrival_s or self._next >= len(self._requests):
            return False
        self._state.now_s = max(self._state.now_s, self._requests[self._next].arrived_s)
        return True

    def _admit(self) -> None:
        self._arrive()
        s, limits = self._state, self._limits
        while s.waiting and len(s.running) + len(s.prefilling) < limits.max_sequences:
            head = s.waiting[0]
            need = head.prompt + head.produced + 1
            if s.cached + need > limits.kv_tokens:
                return
            s.waiting.popleft()
            s.cached += need
            head.pending = head.prompt + head.produced
            s.prefilling.append(head)

    def _mixed_step(self) -> None:
        s, budget = self._state, self._limits.chunk_tokens
        spent, finished = 0, []
        while s.prefilling and spent < budget:
            head = s.prefilling[0]
            piece = min(head.pending, budget - spent)
            head.pending -= piece
            spent += piece
            if head.pending:
                break
            finished.append(s.prefilling.popleft())
        self._advance(self._steps.mixed_s(spent, len(s.running), self._context()), 1)
        for request in finished:
            self._first_token(request)

    def _decode_steps(self) -> None:
        """All steps until the next answer ends, a request arrives, or the cache is full."""
        s = self._state
        batch = len(s.running)
        while s.finishing[0][1] not in s.running or self._ends(s.finishing[0][1]) != s.finishing[0][0]:
            heapq.heappop(s.finishing)
        steps = max(1, s.finishing[0][0] - s.clock)
        steps = min(steps, max(1, (self._limits.kv_tokens - s.cached) // batch))
        each = self._steps.decode_s(batch, self._context() + steps / 2)
        arrival = (
            self._requests[self._next].arrived_s
            if self._workload.arrival_s and self._next < len(self._requests)
            else None
        )
        if arrival is not None and arrival > s.now_s:
            steps = min(steps, int((arrival - s.now_s) / each) + 1)
        self._advance(each * steps, steps)

    def _advance(self, seconds: float, steps: int) -> None:
        """Time passes; every running sequence gains `steps` tokens; answers that end leave."""
        s = self._state
        s.now_s += seconds
        if not s.running:
            return
        s.gaps.append((seconds / steps, steps * len(s.running)))
        s.clock += steps
        s.cached += steps * len(s.running)
        while s.finishing and s.finishing[0][0] <= s.clock:
            end, number = heapq.heappop(s.finishing)
            if number in s.running and self._ends(number) == end:
                self._finish(s.running.pop(number))
        while s.cached > self._limits.kv_tokens and len(s.running) > 1:
            self._preempt()

    def _ends(self, number: int) -> int:
        request = self._state.running[number]
        return request.joined_at + request.output - request.produced

    def _first_token(self, request: _Request) -> None:
        s = self._state
        if request.first_s < 0:
            request.first_s = s.now_s
        request.produced += 1
        request.joined_at = s.clock
        s.running[request.number] = request
        if request.produced >= request.output:
            self._finish(s.running.pop(request.number))
        else:
            heapq.heappush(s.finishing, (self._ends(request.number), request.number))

    def _finish(self, request: _Request) -> None:
        s = self._state
        request.done_s = s.now_s
        s.cached -= request.prompt + request.output
        self._submit()

    def _preempt(self) -> None:
        """The youngest sequence gives its cache back and will recompute it."""
        s = self._state
        _, request = s.running.popitem()
        request.produced += s.clock - request.joined_at
        s.cached -= request.prompt + request.produced
        s.waiting.appendleft(request)
        s.preemptions += 1

    def _context(self) -> float:
        return self._state.cached / max(len(self._state.running) + len(self._state.prefilling), 1)


def simulate(
    model: StepModel,
    limits: Limits,
    workload: Workload,
    *,
    scale: float = 1.0,
    ttft_ms: float = float("inf"),
    tpot_ms: float = float("inf"),
) -> Result:
    """Serve the workload; `scale` multiplies every step time (a correction of the closed form)."""
    scheduler = Scheduler(StepTable(model, scale), limits, workload)
    done = [r for r in scheduler.run() if r.done_s >= 0]
    first = np.array([r.first_s - r.arrived_s for r in done]) * 1e3
    whole = np.array([r.done_s - r.arrived_s for r in done]) * 1e3
    token = np.array([(r.done_s - r.first_s) / max(r.output - 1, 1) for r in done]) * 1e3
    span = max((r.done_s for r in done), default=0.0) or 1.0
    good = int(np.sum((first <= ttft_ms) & (token <= tpot_ms)))
    gaps = np.array(scheduler.state.gaps or [(0.0, 1)])
    return Result(
        _summary(first),
        _weighted(gaps[:, 0] * 1e3, gaps[:, 1]),
        _summary(token),
        _summary(whole),
        output_tokens_per_s=sum(r.output for r in done) / span,
        requests_per_s=len(done) / span,
        goodput_requests_per_s=good / span,
        preemptions=scheduler.state.preemptions,
        completed=len(done),
    )


def _summary(values: Array) -> Summary:
    if not len(values):
        return Summary(*(float("nan"),) * 4)
    p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99))
    return Summary(float(values.mean()), float(p50), float(p95), float(p99))


def _weighted(values: Array, weights: Array) -> Summary:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    found = [float(values[order][min(int(np.searchsorted(reached, q)), len(values) - 1)]) for q in (0.5, 0.95, 0.99)]
    return Summary(float(np.average(values, weights=weights)), *found)

"""Continuous batching, event by event: chunked prefill, cache admission, preemption, closed and open load.

Between two events (an arrival, a finished prompt, a finished answer) every running sequence only decodes, so those
steps are taken at once; a run costs a few events per request, not one per token.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from foundry_sim.physics.step_table import StepTable


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


@dataclass(slots=True)
class Request:
    """One request on its way; negative times have not come. Seconds since the start."""

    number: int
    prompt: int
    output: int
    arrived_s: float
    pending: int = 0  # prompt tokens not yet processed
    produced: int = 0
    first_s: float = -1.0
    done_s: float = -1.0
    evicted_s: float = -1.0  # the last time
    joined_at: int = 0  # decode clock when it joined the running batch


@dataclass(slots=True)
class _State:
    now_s: float = 0.0
    clock: int = 0  # decode steps taken
    cached: int = 0
    waiting: deque[Request] = field(default_factory=deque)
    prefilling: deque[Request] = field(default_factory=deque)
    running: dict[int, Request] = field(default_factory=dict)
    finishing: list[tuple[int, int]] = field(default_factory=list)  # (clock, request number), stale entries skipped
    gaps: list[tuple[float, int]] = field(default_factory=list)  # (seconds per token, tokens)
    preemptions: int = 0


class Scheduler:
    """One engine instance serving one workload."""

    def __init__(self, steps: StepTable, limits: Limits, workload: Workload) -> None:
        self._steps, self._limits, self._workload = steps, limits, workload
        self._requests = [
            Request(n, max(1, p), max(1, o), 0.0)
            for n, (p, o) in enumerate(zip(workload.prompt_tokens, workload.output_tokens, strict=True))
        ]
        self._next = 0
        self._state = _State()

    def run(self) -> list[Request]:
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

    def _first_token(self, request: Request) -> None:
        s = self._state
        if request.first_s < 0:
            request.first_s = s.now_s
        else:  # its client waited for this token since the eviction
            s.gaps.append((s.now_s - request.evicted_s, 1))
        request.produced += 1
        request.joined_at = s.clock
        s.running[request.number] = request
        if request.produced >= request.output:
            self._finish(s.running.pop(request.number))
        else:
            heapq.heappush(s.finishing, (self._ends(request.number), request.number))

    def _finish(self, request: Request) -> None:
        s = self._state
        request.done_s = s.now_s
        s.cached -= request.prompt + request.output
        self._submit()

    def _preempt(self) -> None:
        """The youngest sequence gives its cache back and will recompute it."""
        s = self._state
        _, request = s.running.popitem()
        request.evicted_s = s.now_s
        request.produced += s.clock - request.joined_at
        s.cached -= request.prompt + request.produced
        s.waiting.appendleft(request)
        s.preemptions += 1

    def _context(self) -> float:
        return self._state.cached / max(len(self._state.running) + len(self._state.prefilling), 1)

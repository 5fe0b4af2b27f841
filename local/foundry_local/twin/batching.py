"""Continuous batching as vLLM's V1 scheduler does it: one token budget per step, running first, FCFS admission.

Pure bookkeeping: no clock, no I/O. Source: vllm/v1/core/sched/scheduler.py (chunked prefill always on, preemption by
recomputation of the youngest, blocks of `block_tokens`).
"""

from collections import deque
from dataclasses import dataclass, field

FINISH_LENGTH, FINISH_STOP, FINISH_ABORT = "length", "stop", "abort"


@dataclass(eq=False, slots=True)
class Sequence:
    """One sequence of one request. Times are the clock's seconds."""

    prompt_tokens: int
    max_tokens: int
    arrived: float = 0.0
    natural_tokens: int | None = None
    prefix: tuple[int, ...] = ()
    produced: int = 0
    computed: int = 0
    cached: int = 0
    blocks: int = 0
    admitted: float | None = None
    first_token: float | None = None
    last_token: float = 0.0
    finished: str | None = None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.produced

    @property
    def is_decoding(self) -> bool:
        return self.produced > 0 and self.tokens - self.computed == 1


@dataclass(slots=True)
class Step:
    """What one engine step works on: sequences with their new tokens, and the step's size for the clock."""

    work: list[tuple[Sequence, int]] = field(default_factory=list)
    prefill_tokens: int = 0
    decoding: int = 0
    context_tokens: int = 0
    preempted: int = 0
    admitted: list[Sequence] = field(default_factory=list)

    @property
    def mean_context(self) -> float:
        return self.context_tokens / self.decoding if self.decoding else 0.0

    def add(self, sequence: Sequence, tokens: int) -> None:
        self.work.append((sequence, tokens))
        if sequence.is_decoding:
            self.decoding += 1
            self.context_tokens += sequence.tokens
        else:
            self.prefill_tokens += tokens

    def drop(self, sequence: Sequence) -> int:
        """Take back a sequence that was preempted in this same step; returns its tokens."""
        for position, (item, tokens) in enumerate(self.work):
            if item is sequence:
                del self.work[position]
                if sequence.is_decoding:
                    self.decoding -= 1
                    self.context_tokens -= sequence.tokens
                else:
                    self.prefill_tokens -= tokens
                return tokens
        return 0


class PrefixCache:
    """Which prompt blocks are still in the cache: hashes in least-recently-used order, bounded by free blocks."""

    def __init__(self) -> None:
        self._known: dict[int, None] = {}

    def hits(self, hashes: tuple[int, ...]) -> int:
        """Leading blocks of a prompt that are cached; touching them keeps them."""
        found = 0
        for value in hashes:
            if value not in self._known:
                break
            found += 1
        for value in hashes[:found]:
            self._known[value] = self._known.pop(value)
        return found

    def add(self, hashes: tuple[int, ...], limit: int) -> None:
        for value in hashes:
            self._known.pop(value, None)
            self._known[value] = None
        while len(self._known) > max(limit, 0):
            del self._known[next(iter(self._known))]


class Batcher:
    """Waiting queue, running batch and KV blocks of one engine instance."""

    def __init__(self, kv_blocks: int, block_tokens: int, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self.kv_blocks = kv_blocks
        self.block_tokens = block_tokens
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.free_blocks = kv_blocks
        self.prefixes = PrefixCache()

    @property
    def usage(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
        return 1 - self.free_blocks / self.kv_blocks if self.kv_blocks else 0.0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def fits(self, sequence: Sequence) -> bool:
        """Whether the sequence could ever run alone."""
        return -(-(sequence.prompt_tokens + 1) // self.block_tokens) <= self.kv_blocks

    def plan(self) -> Step:
        """Choose the work of the next step; allocates blocks and moves sequences between the queues."""
        step = Step()
        budget = self._plan_running(step, self.max_num_batched_tokens)
        if not step.preempted:
            self._admit(step, budget)
        return step

    def _plan_running(self, step: Step, budget: int) -> int:
        position = 0
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            tokens = min(sequence.tokens - sequence.computed, budget)
            while not self._allocate(sequence, tokens):
                victim = self.running.pop()
                budget += step.drop(victim)
                self._preempt(victim, step)
                if victim is sequence:
                    return budget
            step.add(sequence, tokens)
            budget -= tokens
            position += 1
        return budget

    def _preempt(self, victim: Sequence, step: Step) -> None:
        self._release(victim)
        victim.computed = 0
        victim.cached = 0
        self.waiting.appendleft(victim)
        step.preempted += 1

    def _admit(self, step: Step, budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            cached = self._cached_tokens(sequence)
            tokens = min(sequence.tokens - cached, budget)
            sequence.computed = cached
            if not self._allocate(sequence, tokens):
                sequence.computed = 0
                return
            sequence.cached = cached
            self.waiting.popleft()
            self.running.append(sequence)
            step.admitted.append(sequence)
            step.add(sequence, tokens)
            budget -= tokens

    def _cached_tokens(self, sequence: Sequence) -> int:
        """Cached prompt tokens, in whole blocks; the last token is always computed."""
        blocks = self.prefixes.hits(sequence.prefix) if sequence.prefix else 0
        return min(blocks * self.block_tokens, max(sequence.tokens - 1, 0) // self.block_tokens * self.block_tokens)

    def _allocate(self, sequence: Sequence, tokens: int) -> bool:
        needed = -(-(sequence.computed + tokens) // self.block_tokens) - sequence.blocks
        if needed > self.free_blocks:
            return False
        if needed > 0:
            sequence.blocks += needed
            self.free_blocks -= needed
        return True

    def _release(self, sequence: Sequence) -> None:
        self.free_blocks += sequence.blocks
        sequence.blocks = 0

    def complete(self, step: Step) -> list[Sequence]:
        """Account for a step that has run; returns the sequences that produced a token in it."""
        producers = []
        for sequence, tokens in step.work:
            if sequence.finished:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.tokens:
                if sequence.prefix and not sequence.produced:
                    self.prefixes.add(sequence.prefix, self.free_blocks + len(sequence.prefix))
                sequence.produced += 1
                producers.append(sequence)
        return producers

    def finish(self, sequence: Sequence, reason: str) -> None:
        """End a sequence, wherever it is; its blocks are free at once."""
        if sequence.finished:
            return
        sequence.finished = reason
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

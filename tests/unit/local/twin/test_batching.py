"""Invariants of continuous batching: budget, blocks, order, and that everything ends."""

from foundry_local.twin.batching import FINISH_ABORT, FINISH_LENGTH, Batcher, PrefixCache, Sequence
from hypothesis import given, settings
from hypothesis import strategies as st


def run_step(batcher: Batcher) -> list[Sequence]:
    step = batcher.plan()
    producers = batcher.complete(step)
    for sequence in producers:
        if sequence.produced >= sequence.max_tokens:
            batcher.finish(sequence, FINISH_LENGTH)
    return producers


def test_prompts_are_prefilled_in_chunks_of_the_budget() -> None:
    batcher = Batcher(kv_blocks=100, block_tokens=16, max_num_seqs=8, max_num_batched_tokens=100)
    long, short = Sequence(250, 2), Sequence(30, 2)
    batcher.add(long)
    batcher.add(short)
    sizes = []
    while batcher.running or batcher.waiting:
        step = batcher.plan()
        sizes.append((step.prefill_tokens, step.decoding))
        for sequence in batcher.complete(step):
            if sequence.produced >= sequence.max_tokens:
                batcher.finish(sequence, FINISH_LENGTH)
    # 250 in chunks of 100; the short prompt shares the third chunk; then both decode once.
    assert sizes == [(100, 0), (100, 0), (80, 0), (0, 2)]


def test_decoding_goes_before_prefilling() -> None:
    batcher = Batcher(1000, 16, 8, 64)
    first = Sequence(10, 10)
    batcher.add(first)
    run_step(batcher)
    batcher.add(Sequence(1000, 10))
    step = batcher.plan()
    assert (step.decoding, step.prefill_tokens) == (1, 63)
    assert step.mean_context == 11


def test_max_num_seqs_and_first_come_first_served() -> None:
    batcher = Batcher(1000, 16, 2, 1000)
    sequences = [Sequence(10, 3) for _ in range(3)]
    for sequence in sequences:
        batcher.add(sequence)
    run_step(batcher)
    assert batcher.running == sequences[:2] and list(batcher.waiting) == sequences[2:]


def test_the_youngest_is_preempted_when_blocks_run_out_and_starts_again() -> None:
    batcher = Batcher(kv_blocks=4, block_tokens=16, max_num_seqs=8, max_num_batched_tokens=1000)
    old, young = Sequence(32, 20), Sequence(31, 20)
    batcher.add(old)
    batcher.add(young)
    run_step(batcher)
    assert batcher.free_blocks == 0
    step = batcher.plan()
    assert step.preempted == 1 and [item for item, _ in step.work] == [old]
    assert list(batcher.waiting) == [young] and young.computed == 0 and young.produced == 1
    batcher.complete(step)
    batcher.finish(old, FINISH_ABORT)
    step = batcher.plan()
    assert step.work == [(young, 32)], "prompt and what it had produced are computed again"


def test_aborting_frees_the_blocks_at_once() -> None:
    batcher = Batcher(100, 16, 8, 1000)
    sequence = Sequence(160, 10)
    batcher.add(sequence)
    step = batcher.plan()
    batcher.finish(sequence, FINISH_ABORT)
    assert batcher.free_blocks == 100 and batcher.complete(step) == [] and sequence.produced == 0


def test_prefix_cache() -> None:
    cache = PrefixCache()
    cache.add((1, 2, 3), limit=4)
    assert (cache.hits((1, 2, 9)), cache.hits((9, 1)), cache.hits((1, 2, 3, 4))) == (2, 0, 3)
    cache.add((7, 8), limit=4)
    assert cache.hits((1,)) == 0, "the least recently used block goes first"


def test_a_cached_prefix_is_not_computed_again() -> None:
    batcher = Batcher(100, 16, 8, 1000)
    for expected in (64, 16):
        sequence = Sequence(64, 1, prefix=(1, 2, 3, 4))
        batcher.add(sequence)
        step = batcher.plan()
        assert step.prefill_tokens == expected, "the last block is computed: its last token is needed"
        batcher.complete(step)
        batcher.finish(sequence, FINISH_LENGTH)


jobs = st.lists(st.tuples(st.integers(1, 120), st.integers(1, 40)), min_size=1, max_size=25)


@settings(max_examples=150)
@given(jobs, st.integers(11, 60), st.integers(1, 8), st.integers(8, 200))
def test_invariants(sizes: list[tuple[int, int]], blocks: int, max_seqs: int, budget: int) -> None:
    batcher = Batcher(blocks, 16, max_seqs, budget)
    sequences = [Sequence(prompt, output) for prompt, output in sizes]
    for sequence in sequences:
        batcher.add(sequence)
    for _ in range(20_000):
        if not batcher.running and not batcher.waiting:
            break
        step = batcher.plan()
        assert step.work, "no deadlock"
        total = sum(tokens for _, tokens in step.work)
        assert 0 < total <= budget and total == step.prefill_tokens + step.decoding
        assert len(batcher.running) <= max_seqs
        assert batcher.free_blocks >= 0
        assert batcher.free_blocks + sum(item.blocks for item in sequences) == blocks
        for sequence in batcher.complete(step):
            if sequence.produced >= sequence.max_tokens:
                batcher.finish(sequence, FINISH_LENGTH)
    assert [item.produced for item in sequences] == [output for _, output in sizes]
    assert batcher.free_blocks == blocks and batcher.usage == 0

"""The memory model: published cache sizes, sharding that adds up, and what is left for the cache."""

from dataclasses import replace

import pytest
from foundry_sim.errors import ConfigurationError
from foundry_sim.facts.architecture import resolve
from foundry_sim.facts.devices import device
from foundry_sim.facts.memory import EngineLimits, activation_bytes, budget, checkpoint_bytes, kv_bytes_per_token
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.weights import Layout, stages
from hypothesis import given, settings
from hypothesis import strategies as st

BF16 = Precision()
# Bytes per token in 16 bit: layers × 2 × KV heads × head dim × 2, or layers × (latent + rope) × 2, worked out by hand
# from the papers' tables; hybrids count their attention layers only.
KV_BYTES = {
    "meta-llama/Llama-2-7b-hf": 524_288,
    "meta-llama/Llama-2-70b-hf": 327_680,
    "meta-llama/Llama-3.1-8B": 131_072,
    "meta-llama/Llama-3.1-405B": 516_096,
    "meta-llama/Llama-3.2-1B": 32_768,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 196_608,
    "Qwen/Qwen2.5-7B-Instruct": 57_344,
    "Qwen/Qwen2.5-72B-Instruct": 327_680,
    "Qwen/Qwen3-32B": 262_144,
    "Qwen/Qwen3-235B-A22B": 192_512,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 24_576,
    "mistralai/Mixtral-8x7B-v0.1": 131_072,
    "mistralai/Mistral-Large-Instruct-2407": 360_448,
    "google/gemma-2-9b-it": 344_064,
    "google/gemma-3-27b-it": 507_904,
    "microsoft/Phi-3-mini-4k-instruct": 393_216,
    "deepseek-ai/DeepSeek-V2-Lite": 31_104,
    "deepseek-ai/DeepSeek-V2": 69_120,
    "deepseek-ai/DeepSeek-V3": 70_272,
    "moonshotai/Kimi-K2-Instruct": 70_272,
    "openai/gpt-oss-120b": 73_728,
    "openai/gpt-oss-20b": 49_152,
    "zai-org/GLM-4.5-Air": 188_416,
    "MiniMaxAI/MiniMax-Text-01": 40_960,
    "ai21labs/Jamba-v0.1": 16_384,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 6_144,
    "tiiuae/falcon-7b": 8_192,
    "tiiuae/falcon-40b": 122_880,
    "bigscience/bloom": 4_014_080,
    "bigcode/starcoder": 20_480,
    "CohereLabs/c4ai-command-r-plus": 262_144,
    "BAAI/bge-m3": 0,
}


@pytest.mark.parametrize(("model", "expected"), KV_BYTES.items())
def test_kv_bytes_per_token(model: str, expected: int) -> None:
    assert kv_bytes_per_token(resolve(model), "bf16") == expected


def test_an_fp8_cache_is_half() -> None:
    llama = resolve("meta-llama/Llama-3.1-8B")
    assert kv_bytes_per_token(llama, "fp8") * 2 == kv_bytes_per_token(llama, "bf16")


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        # Sizes of the published safetensors, in 10⁹ bytes.
        ("meta-llama/Llama-3.1-8B", 16.06),
        ("meta-llama/Llama-3.1-70B", 141.1),
        ("openai/gpt-oss-120b", 65.25),
        ("openai/gpt-oss-20b", 13.76),
        ("Qwen/Qwen3-235B-A22B", 470.2),
        ("nvidia/Llama-3.1-70B-Instruct-FP8", 72.7),
    ],
)
def test_checkpoint_sizes(model: str, gigabytes: float) -> None:
    found = resolve(model)
    assert checkpoint_bytes(found, found.checkpoint_precision) / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_kv_heads_replicate_when_tp_exceeds_them() -> None:
    falcon = resolve("Qwen/Qwen2.5-7B-Instruct")  # 4 KV heads
    assert kv_bytes_per_token(falcon, "bf16", tp=4) == kv_bytes_per_token(falcon, "bf16") // 4
    assert kv_bytes_per_token(falcon, "bf16", tp=28) == kv_bytes_per_token(falcon, "bf16", tp=4)
    whole = stages(falcon, BF16, Layout())[0].weight_bytes
    held = stages(falcon, BF16, Layout(tp=28))[0].weight_bytes
    assert held > whole / 28


def test_the_latent_cache_is_never_split() -> None:
    deepseek = resolve("deepseek-ai/DeepSeek-V3")
    assert kv_bytes_per_token(deepseek, "bf16", tp=8) == 70_272


def test_the_sparse_indexer_adds_its_keys() -> None:
    sparse, dense = resolve("deepseek-ai/DeepSeek-V3.2"), resolve("deepseek-ai/DeepSeek-V3")
    assert kv_bytes_per_token(sparse, "bf16") - kv_bytes_per_token(dense, "bf16") == 61 * 132


def test_windows_bound_the_cache_of_a_sequence() -> None:
    gemma = resolve("google/gemma-3-27b-it")
    stage = stages(gemma, BF16, Layout())[0]
    per_layer = 16 * 128 * 2 * 2
    full = gemma.attention.count("full")
    assert stage.sequence_bytes(32_768) == per_layer * (full * 32_768 + (62 - full) * 1024)
    assert stage.sequence_bytes(512) == per_layer * 62 * 512


def test_recurrent_layers_cost_a_fixed_state() -> None:
    jamba = resolve("ai21labs/Jamba-v0.1")
    stage = stages(jamba, BF16, Layout())[0]
    assert stage.state_bytes > 0
    assert stage.sequence_bytes(2000) - stage.sequence_bytes(1000) == 16_384 * 1000


def test_experts_spread_over_tp_and_dp() -> None:
    deepseek = resolve("deepseek-ai/DeepSeek-V3")
    fp8 = deepseek.checkpoint_precision
    tensor = stages(deepseek, fp8, Layout(tp=8))[0].weight_bytes
    attention_copies = stages(deepseek, fp8, Layout(tp=1, dp=8, ep=8))[0].weight_bytes
    assert tensor == pytest.approx(85.1e9, rel=0.01)
    assert tensor < attention_copies < tensor + 20e9


def test_pipeline_stages_hold_everything_once() -> None:
    llama = resolve("meta-llama/Llama-3.1-70B")
    parts = stages(llama, BF16, Layout(pp=3))
    assert sum(part.weight_bytes for part in parts) == pytest.approx(checkpoint_bytes(llama, BF16), rel=1e-6)
    assert sum(part.kv_bytes_per_token for part in parts) == kv_bytes_per_token(llama, "bf16")


def test_tied_embeddings_are_copied_to_the_last_stage() -> None:
    small = resolve("meta-llama/Llama-3.2-1B")
    parts = stages(small, BF16, Layout(pp=2))
    extra = sum(part.weight_bytes for part in parts) - checkpoint_bytes(small, BF16)
    assert extra == small.vocab * small.hidden * 2


def test_workspace_grows_with_the_chunk_not_with_the_batch() -> None:
    llama = resolve("meta-llama/Llama-3.1-8B")
    base = activation_bytes(llama, Layout(), EngineLimits(chunk_tokens=8192, max_num_seqs=128))
    assert activation_bytes(llama, Layout(), EngineLimits(chunk_tokens=16384, max_num_seqs=128)) == 2 * base
    assert activation_bytes(llama, Layout(), EngineLimits(chunk_tokens=8192, max_num_seqs=256)) == base


def test_budget_adds_up_and_counts_blocks() -> None:
    llama, h100 = resolve("meta-llama/Llama-3.1-8B"), device("h100_sxm")
    found = budget(llama, h100, limits=EngineLimits(max_num_seqs=4096), context_tokens=2048)
    used = found.weight_bytes + found.activation_bytes + found.reserve_bytes + found.lora_bytes
    assert used + found.free_kv_bytes == found.usable_bytes == int(found.memory_bytes * 0.9)
    assert found.kv_blocks == found.free_kv_bytes // 131_072 // 16
    assert found.max_concurrency == found.free_kv_bytes // (131_072 * 2048)


def test_what_does_not_fit_says_why() -> None:
    large, l40s = resolve("meta-llama/Llama-3.1-70B"), device("l40s")
    found = budget(large, l40s)
    assert not found.fits
    assert found.max_concurrency == 0
    assert "weights need 131.4 GiB" in found.reason
    long = budget(resolve("meta-llama/Llama-3.1-8B"), l40s, context_tokens=10_000_000)
    assert "one sequence of 10,000,000 tokens" in long.reason


def test_lora_slots_and_drafting_layers_take_memory() -> None:
    llama, h200 = resolve("meta-llama/Llama-3.1-70B"), device("h200_sxm")
    plain = budget(llama, h200, tp=4)
    adapted = budget(llama, h200, tp=4, limits=EngineLimits(lora_adapters=8, lora_rank=16))
    # 16 × (inputs + outputs) of q, k, v, o, gate, up and down, in 16 bit, over 80 layers and 8 slots
    per_layer = 16 * (2 * (8192 + 8192) + 2 * (8192 + 1024) + 3 * (8192 + 28672))
    assert adapted.lora_bytes == 80 * per_layer * 2 * 8 // 4
    assert plain.free_kv_bytes - adapted.free_kv_bytes == adapted.lora_bytes
    deepseek = resolve("deepseek-ai/DeepSeek-V3")
    drafting = budget(deepseek, h200, tp=8, limits=EngineLimits(speculative=True))
    assert drafting.weight_bytes > budget(deepseek, h200, tp=8).weight_bytes


def test_a_shared_device_has_its_share() -> None:
    small, h100 = resolve("Qwen/Qwen3-0.6B"), device("h100_sxm")
    half = budget(small, h100, limits=EngineLimits(device_share=0.5), context_tokens=1024)
    assert half.memory_bytes == h100.memory_bytes // 2


@pytest.mark.parametrize("bad", [{"tp": 0}, {"ep": 3}, {"pp": 1000}, {"dp": -1}])
def test_impossible_layouts_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        budget(resolve("meta-llama/Llama-3.1-8B"), device("h100_sxm"), **bad)  # type: ignore[arg-type]


_MODELS = [
    "meta-llama/Llama-3.1-70B",
    "deepseek-ai/DeepSeek-V3",
    "google/gemma-3-27b-it",
    "ai21labs/Jamba-v0.1",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "openai/gpt-oss-120b",
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1",
]


@settings(max_examples=150, deadline=None)
@given(
    model=st.sampled_from(_MODELS),
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([1, 2, 3, 4]),
    weights=st.sampled_from(["bf16", "fp8", "nvfp4", "int4"]),
    context=st.integers(1, 200_000),
)
def test_more_ranks_never_hold_less_than_the_model(model: str, tp: int, pp: int, weights: str, context: int) -> None:
    found, precision = resolve(model), Precision(weights=weights)
    parts = stages(found, precision, Layout(tp=tp, pp=pp))
    assert tp * sum(part.weight_bytes for part in parts) >= checkpoint_bytes(found, precision) * (1 - 1e-6)
    assert tp * sum(part.kv_bytes_per_token for part in parts) >= kv_bytes_per_token(found, "bf16") - tp * pp
    for part in parts:
        assert part.sequence_bytes(context) <= part.sequence_bytes(context + 1)


@settings(max_examples=100, deadline=None)
@given(context=st.integers(16, 100_000), seqs=st.integers(1, 2048), util=st.floats(0.3, 1.0))
def test_budgets_never_promise_more_than_there_is(context: int, seqs: int, util: float) -> None:
    limits = EngineLimits(max_num_seqs=seqs, memory_utilization=util)
    found = budget(resolve("Qwen/Qwen3-32B"), device("h100_sxm"), tp=2, limits=limits, context_tokens=context)
    assert found.max_concurrency <= seqs
    assert found.max_concurrency * found.kv_bytes_per_sequence <= found.free_kv_bytes
    assert found.fits == (found.max_concurrency > 0) == (not found.reason)
    tighter = budget(
        resolve("Qwen/Qwen3-32B"), device("h100_sxm"), tp=2, context_tokens=context,
        limits=replace(limits, memory_utilization=util * 0.9),
    )  # fmt: skip
    assert tighter.free_kv_bytes <= found.free_kv_bytes

"""From command line, device and config to an engine: the simulator's figures, and the real engine's refusals."""

from typing import Any

import pytest
from foundry_local.twin import EngineModel, StartupError, model_for, parse_options
from foundry_sim.facts.architecture import from_config
from foundry_sim.facts.devices import device
from foundry_sim.physics.step import Setup, StepModel

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
H100 = "NVIDIA-H100-80GB-HBM3"


def build(arguments: str, device_name: str = H100, config: Any = LLAMA_8B) -> EngineModel:
    return model_for(parse_options(["--model", "meta/llama", *arguments.split()]), device_name, config)


def test_the_step_time_is_the_simulators() -> None:
    found = build("--max-model-len 8192 --max-num-seqs 64 --max-num-batched-tokens 2048")
    facts = from_config(LLAMA_8B)
    reference = StepModel(
        Setup(facts, device(H100), "vllm", None, None, facts.checkpoint_precision, max_num_seqs=64, chunk_tokens=2048)
    )
    for prefill, decoding, context in ((0, 1, 100.0), (0, 64, 1500.0), (2048, 0, 0.0), (1984, 64, 4000.0)):
        expected = float(reference.step_ms(prefill, decoding, context))
        assert found.step_ms(prefill, decoding, context) == pytest.approx(expected, rel=0.01)


def test_memory_decides_the_cache() -> None:
    small, large = build("--gpu-memory-utilization 0.5 --max-model-len 8192"), build("--max-model-len 8192")
    assert small.kv_blocks < large.kv_blocks
    assert build("--max-model-len 8192 --kv-cache-dtype fp8").kv_blocks > 1.9 * large.kv_blocks
    # 80 GiB × 0.9 − 15 GiB of weights − workspace, at 128 KiB per token: between 350 and 480 thousand tokens.
    assert 350_000 < large.kv_tokens < 480_000


def test_engine_defaults_follow_the_device() -> None:
    large = build("--max-model-len 8192")
    assert (large.max_num_seqs, large.max_num_batched_tokens) == (1024, 8192)
    other = build("--max-model-len 8192", "NVIDIA-A100-SXM4-80GB")
    assert (other.max_num_seqs, other.max_num_batched_tokens) == (256, 2048)


def test_data_parallel_replicas_count_together() -> None:
    one, two = build("--max-model-len 8192 --max-num-seqs 32"), build("--max-model-len 8192 --max-num-seqs 32 -dp 2")
    assert two.max_num_seqs == 64
    assert two.kv_blocks == pytest.approx(2 * one.kv_blocks, rel=0.02), "less the buffers of their collectives"


@pytest.mark.parametrize(
    ("arguments", "device_name", "message"),
    [
        ("--gpu-memory-utilization 0.6", "NVIDIA-L40S", "max seq len"),
        ("--max-model-len 500000", H100, "User-specified max_model_len"),
        ("--max-model-len 1024 --gpu-memory-utilization 0.15", H100, "No available memory for the cache blocks"),
        ("", "NVIDIA-H9000", "H9000"),
        ("--kv-cache-dtype fp3", H100, "precision"),
    ],
)
def test_what_does_not_start(arguments: str, device_name: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        build(arguments, device_name)


def test_unknown_model_without_config() -> None:
    with pytest.raises(StartupError, match="meta/llama"):
        build("", config=None)

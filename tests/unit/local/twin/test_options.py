"""vLLM's command line as pods carry it."""

import pytest
from foundry_local.twin import EngineOptions, OptionsError, parse_options

FULL = (
    "--model m --served-model-name a b --tensor-parallel-size 2 --pipeline-parallel-size=2 --max-model-len 8k "
    "--max-num-seqs 64 --max_num_batched_tokens 2048 --gpu-memory-utilization 0.85 --kv-cache-dtype fp8 "
    "--api-key k --port 9000 --seed 7 --enable-expert-parallel --no-enable-prefix-caching --enforce-eager"
)


def test_everything_that_matters() -> None:
    assert parse_options(FULL.split()) == EngineOptions(
        model="m", served_names=("a", "b"), port=9000, tensor_parallel=2, pipeline_parallel=2, expert_parallel=True,
        max_model_len=8000, max_num_seqs=64, max_num_batched_tokens=2048, memory_utilization=0.85,
        kv_cache_dtype="fp8", api_keys=("k",), seed=7, prefix_caching=False, eager=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ["vllm", "serve", "m", "-tp", "4"],
        ["/usr/bin/vllm", "serve", "m", "--tensor-parallel-size=4"],
        ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m", "--tensor_parallel_size", "4"],
        ["/bin/sh", "-c", "set -e\nexec vllm serve m --tensor-parallel-size 4"],
        ["bash", "-lc", "vllm serve m \\\n  --tensor-parallel-size 4"],
        ["python", "-m", "sglang.launch_server", "--model-path", "m", "--tp-size", "4"],
        ["trtllm-serve", "serve", "m", "--tp_size", "4"],
        ["--model=m", "--tensor-parallel-size", "4"],
    ],
)
def test_ways_to_start_an_engine(command: list[str]) -> None:
    options = parse_options(command)
    assert (options.model, options.tensor_parallel, options.served_names) == ("m", 4, ("m",))


def test_unknown_options_are_named_and_their_values_skipped() -> None:
    options = parse_options(["--model", "m", "--speculative-config", '{"method": "eagle"}', "--enable-lora"])
    assert options.ignored == ("--speculative-config", "--enable-lora") and options.model == "m"


def test_the_key_may_come_from_the_environment() -> None:
    assert parse_options(["--model", "m"], {"VLLM_API_KEY": "k"}).api_keys == ("k",)
    assert parse_options(["--model", "m", "--api-key", "a"], {"VLLM_API_KEY": "k"}).api_keys == ("a",)


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--port", "8000"], ["--model", "m", "--max-model-len", "many"], ["--model", "m", "--port"],
        ["--model", "m", "--gpu-memory-utilization", "1.5"], ["--model", "m", "--max-num-seqs", "-3"],
    ],
)  # fmt: skip
def test_refuses_what_the_engine_refuses(arguments: list[str]) -> None:
    with pytest.raises(OptionsError, match="error: "):
        parse_options(arguments)


def test_human_sizes() -> None:
    assert parse_options(["--model", "m", "--max-model-len", "8K"]).max_model_len == 8192

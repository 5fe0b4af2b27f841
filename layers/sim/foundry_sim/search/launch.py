"""The command that starts a configuration: vLLM, SGLang and TensorRT-LLM servers."""

import shlex
from dataclasses import dataclass

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.memory import EngineLimits
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.weights import Layout

# Which side an instance is on is the router's business: vLLM's connector sends and receives.
_VLLM_TRANSFER = """--kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'"""
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_TRTLLM_MODULES = "attn_q, attn_k, attn_v, attn_dense, mlp_h_to_4h, mlp_gate, mlp_4h_to_h"


@dataclass(frozen=True, slots=True)
class Launch:
    """One server process group; ``quantise`` is set when the weights are quantised while loading."""

    architecture: Architecture
    engine: str
    layout: Layout
    precision: Precision
    limits: EngineLimits
    max_model_len: int
    quantise: str = ""
    role: str = "serve"


def command(launch: Launch) -> str:
    """The shell command, one line; the port and host are the deployer's to add."""
    return " ".join(_COMMANDS[launch.engine](launch))


def benchmark_command(model: str, input_tokens: int, output_tokens: int, concurrency: int) -> str:
    """A closed-loop benchmark of a running server at the planned load; ten rounds, so that the start burst is small."""
    return (
        f"vllm bench serve --model {model} --dataset-name random --random-input-len {input_tokens} "
        f"--random-output-len {output_tokens} --ignore-eos --max-concurrency {concurrency} "
        f"--num-prompts {10 * concurrency}"
    )


def needs_checkpoint(architecture: Architecture, precision: Precision, quantise: str = "") -> bool:
    """Whether the weights are in another format than the model's own, and no engine option makes it while loading."""
    return not quantise and _formats(precision) != _formats(architecture.checkpoint_precision)


def _formats(precision: Precision) -> tuple[str, ...]:
    """Engines load either 16-bit format as the other."""
    return tuple("bf16" if name == "fp16" else name for name in (precision.weights, precision.moe))


def _weights(launch: Launch) -> str:
    """What to load. A checkpoint in another format has a name of its own, which is not known here."""
    name = launch.architecture.name
    if needs_checkpoint(launch.architecture, launch.precision, launch.quantise):
        name = f"<{launch.precision.weights} checkpoint of {name}>"
    return shlex.quote(name)


def _vllm(launch: Launch) -> list[str]:
    layout, limits, embeds = launch.layout, launch.limits, launch.architecture.task != "generate"
    return [
        "vllm", "serve", _weights(launch),
        *_flag("--runner pooling", embeds),
        f"--tensor-parallel-size {layout.tp}",
        *_flag(f"--pipeline-parallel-size {layout.pp}", layout.pp > 1),
        *_flag(f"--data-parallel-size {layout.dp}", layout.dp > 1),
        *_flag("--enable-expert-parallel", layout.ep > 1),
        *_flag(f"--quantization {launch.quantise}", bool(launch.quantise)),
        *_flag(f"--dtype {_dtype(launch.precision)}", launch.precision.attention == "fp16"),
        *_flag("--kv-cache-dtype fp8", launch.precision.kv == "fp8"),
        f"--max-model-len {launch.max_model_len}",
        f"--max-num-seqs {limits.max_num_seqs}",
        *_flag(f"--max-num-batched-tokens {limits.chunk_tokens}", not embeds),
        f"--gpu-memory-utilization {limits.memory_utilization:.2f}",
        *_flag(_VLLM_TRANSFER, launch.role != "serve"),
        *_flag(f"--enable-lora --max-loras {limits.lora_adapters} --max-lora-rank {_vllm_rank(limits.lora_rank)}",
               limits.lora_adapters > 0),
    ]  # fmt: skip


def _vllm_rank(rank: int) -> int:
    """vLLM starts with one of these only."""
    return next((known for known in _VLLM_RANKS if known >= rank), _VLLM_RANKS[-1])


def _sglang(launch: Launch) -> list[str]:
    layout, limits = launch.layout, launch.limits
    ranks = layout.tp * layout.dp
    return [
        "python", "-m", "sglang.launch_server", f"--model-path {_weights(launch)}",
        *_flag("--is-embedding", launch.architecture.task != "generate"),
        f"--tp-size {ranks}",
        *_flag(f"--pp-size {layout.pp}", layout.pp > 1),
        *_flag(f"--dp-size {layout.dp} --enable-dp-attention", layout.dp > 1),
        *_flag(f"--ep-size {layout.ep}", layout.ep > 1),
        *_flag(f"--quantization {launch.quantise}", bool(launch.quantise)),
        *_flag("--kv-cache-dtype fp8_e4m3", launch.precision.kv == "fp8"),
        f"--context-length {launch.max_model_len}",
        f"--max-running-requests {limits.max_num_seqs * layout.dp}",
        f"--chunked-prefill-size {limits.chunk_tokens}",
        f"--mem-fraction-static {limits.memory_utilization:.2f}",
        *_flag(f"--disaggregation-mode {launch.role}", launch.role != "serve"),
        *_flag(f"--enable-lora --max-loras-per-batch {limits.lora_adapters} --max-lora-rank {limits.lora_rank} "
               "--lora-target-modules all", limits.lora_adapters > 0),
    ]  # fmt: skip


def _trtllm(launch: Launch) -> list[str]:
    layout, limits = launch.layout, launch.limits
    return [
        "trtllm-serve", "serve", _weights(launch),
        f"--tp_size {layout.tp * layout.dp}",
        *_flag(f"--pp_size {layout.pp}", layout.pp > 1),
        *_flag(f"--ep_size {layout.ep}", layout.ep > 1),
        f"--max_seq_len {launch.max_model_len}",
        f"--max_batch_size {limits.max_num_seqs}",
        f"--max_num_tokens {limits.chunk_tokens}",
        f"--kv_cache_free_gpu_memory_fraction {limits.memory_utilization:.2f}",
        *_trtllm_options(launch),
    ]  # fmt: skip


def _trtllm_options(launch: Launch) -> list[str]:
    """What trtllm-serve takes from a YAML file only, handed over as one (bash process substitution)."""
    options = ["enable_attention_dp: true"] if launch.layout.dp > 1 else []
    options += ["kv_cache_config: {dtype: fp8}"] if launch.precision.kv == "fp8" else []
    options += [_trtllm_lora(launch.limits)] if launch.limits.lora_adapters else []
    lines = " ".join(f"'{option}'" for option in options)
    return [f"--extra_llm_api_options <(printf '%s\\n' {lines})"] if options else []


def _trtllm_lora(limits: EngineLimits) -> str:
    held = f"max_loras: {limits.lora_adapters}, max_cpu_loras: {limits.lora_adapters}"
    return f"lora_config: {{max_lora_rank: {limits.lora_rank}, {held}, lora_target_modules: [{_TRTLLM_MODULES}]}}"


def _flag(text: str, wanted: bool) -> list[str]:
    return [text] if wanted else []


def _dtype(precision: Precision) -> str:
    return "float16" if precision.attention == "fp16" else "bfloat16"


_COMMANDS = {"vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm}
ENGINES = tuple(_COMMANDS)

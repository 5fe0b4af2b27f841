"""From options, device and architecture to what the batching loop needs: step times and room for the KV cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from foundry_sim.errors import SimulatorError
from foundry_sim.facts.architecture import Architecture, resolve
from foundry_sim.facts.devices import Device
from foundry_sim.facts.devices import device as find_device
from foundry_sim.facts.memory import EngineLimits, MemoryBudget, budget
from foundry_sim.facts.precision import Precision
from foundry_sim.physics.step import Setup, StepModel

from foundry_local.twin.options import EngineOptions

GIB = 1 << 30
# vLLM picks larger defaults on large devices other than the A100 (vllm/engine/arg_utils.py).
_LARGE_MEMORY_BYTES = 70 * GIB
# Reading weights from a local disk, then compiling and capturing graphs; only the order of magnitude matters.
_LOAD_BYTES_PER_S = 2e9
_WARM_UP_S = 12.0

StepTime = Callable[[int, int, float], float]
"""(prefill tokens, decoding sequences, their mean context in tokens) → milliseconds."""


class StartupError(RuntimeError):
    """The real engine would exit while it starts; the message is what it would log last."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """One engine instance as the batching loop sees it."""

    name: str
    device: str
    step_ms: StepTime
    kv_blocks: int
    block_tokens: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    hidden: int = 4096
    task: str = "generate"
    load_s: float = 0.0

    @property
    def kv_tokens(self) -> int:
        return self.kv_blocks * self.block_tokens


def model_for(options: EngineOptions, device_name: str, architecture: str | Mapping[str, Any] | None) -> EngineModel:
    """What an engine with these options on such a device would be.

    Args:
        device_name: a name or alias that `foundry_sim.facts.devices` knows, such as the `nvidia.com/gpu.product` label.
        architecture: a config.json object or a bundled name; None resolves `options.model`.
    Raises:
        StartupError: unknown device or architecture, or it does not fit.
    """
    try:
        device = find_device(device_name)
        facts = resolve(architecture if architecture is not None else options.model)
        setup = _setup(options, facts, device)
        room = _budget(options, setup)
        step = StepModel(setup)
    except SimulatorError as problem:
        raise StartupError(f"ValueError: {problem}") from problem
    max_len = _max_model_len(options, facts, room)
    return EngineModel(
        name=options.served_names[0],
        device=device.name,
        step_ms=step_time(step),
        kv_blocks=room.kv_blocks * options.data_parallel,
        block_tokens=options.block_tokens,
        max_model_len=max_len,
        max_num_seqs=setup.max_num_seqs * options.data_parallel,
        max_num_batched_tokens=setup.chunk_tokens * options.data_parallel,
        hidden=facts.hidden,
        task=facts.task,
        load_s=room.weight_bytes / _LOAD_BYTES_PER_S + (0 if options.eager else _WARM_UP_S),
    )


def _setup(options: EngineOptions, facts: Architecture, device: Device) -> Setup:
    large = device.memory_bytes >= _LARGE_MEMORY_BYTES and "a100" not in device.name.lower()
    return Setup(
        architecture=facts,
        device=device,
        engine="vllm",
        engine_version=None,
        date=None,
        precision=_precision(options, facts),
        tp=options.tensor_parallel,
        pp=options.pipeline_parallel,
        ep=options.tensor_parallel * options.data_parallel if options.expert_parallel else 1,
        dp=options.data_parallel,
        max_num_seqs=options.max_num_seqs or (1024 if large else 256),
        chunk_tokens=options.max_num_batched_tokens or (8192 if large else 2048),
    )


def _precision(options: EngineOptions, facts: Architecture) -> Precision:
    """The checkpoint's formats, changed where the command line says so."""
    shipped = facts.checkpoint_precision
    weights, activations, moe, attention = shipped.weights, shipped.activations, shipped.moe, shipped.attention
    if options.quantization in ("fp8", "mxfp8"):
        weights = activations = moe = attention = options.quantization
    elif options.dtype in ("float16", "half", "bfloat16") and weights in ("bf16", "fp16", "fp32"):
        weights = activations = moe = attention = options.dtype
    kv = shipped.kv if options.kv_cache_dtype == "auto" else options.kv_cache_dtype
    return Precision(weights, activations, kv, moe, attention)


def _budget(options: EngineOptions, setup: Setup) -> MemoryBudget:
    limits = EngineLimits(
        max_num_seqs=setup.max_num_seqs,
        chunk_tokens=setup.chunk_tokens,
        memory_utilization=options.memory_utilization,
        block_tokens=options.block_tokens,
        max_model_len=options.max_model_len,
        cuda_graphs=not options.eager,
    )
    return budget(
        setup.architecture,
        setup.device,
        setup.precision,
        tp=setup.tp,
        pp=setup.pp,
        ep=setup.ep,
        dp=setup.dp,
        limits=limits,
    )


def _max_model_len(options: EngineOptions, facts: Architecture, room: MemoryBudget) -> int:
    if room.free_kv_bytes <= 0:
        raise StartupError(
            "torch.OutOfMemoryError: CUDA out of memory."
            if room.weight_bytes > room.memory_bytes
            else "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` "
            "when initializing the engine."
        )
    wanted = options.max_model_len or facts.max_position
    if options.max_model_len and facts.max_position and options.max_model_len > facts.max_position:
        raise StartupError(
            f"ValueError: User-specified max_model_len ({options.max_model_len}) is greater than the derived "
            f"max_model_len (max_position_embeddings={facts.max_position}). To allow overriding this maximum, set "
            "the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
    if facts.task == "generate" and room.kv_bytes_per_sequence > room.free_kv_bytes:
        raise StartupError(
            f"ValueError: To serve at least one request with the models's max seq len ({wanted}), "
            f"({room.kv_bytes_per_sequence / GIB:.2f} GiB KV cache is needed, which is larger than the available KV "
            f"cache memory ({room.free_kv_bytes / GIB:.2f} GiB). Based on the available memory, the estimated maximum "
            f"model length is {room.kv_tokens}. Try increasing `gpu_memory_utilization` or decreasing "
            "`max_model_len` when initializing the engine."
        )
    return wanted


def step_time(model: StepModel) -> StepTime:
    """Step times with a cache: contexts are rounded to 1/32 of their size, which moves a step by less than 1 %."""

    @lru_cache(maxsize=8192)
    def exact(prefill_tokens: int, decoding: int, context: int) -> float:
        return float(model.step_ms(prefill_tokens, decoding, context))

    def rounded(prefill_tokens: int, decoding: int, context: float) -> float:
        grain = max(1, 1 << max(int(context).bit_length() - 5, 0))
        return exact(prefill_tokens, decoding, round(context / grain) * grain)

    return rounded

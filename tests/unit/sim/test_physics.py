"""The roofline's promises: nothing runs faster than the data sheet, and more work never takes less time."""

import numpy as np
import pytest
from foundry_sim.facts.architecture import from_config
from foundry_sim.facts.devices import device
from foundry_sim.facts.precision import Precision, bytes_of
from foundry_sim.physics.step import Setup, StepModel, distinct_experts, smooth_max
from hypothesis import given
from hypothesis import strategies as st

DENSE: dict[str, object] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
EXPERTS: dict[str, object] = DENSE | {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}


def model(config: dict[str, object], name: str, weights: str, tp: int = 1, pp: int = 1) -> StepModel:
    precision = Precision(weights=weights, activations=weights, kv="bf16")
    return StepModel(Setup(from_config(config), device(name), "vllm", None, None, precision, tp=tp, pp=pp))


@given(
    config=st.sampled_from([DENSE, EXPERTS]),
    name=st.sampled_from(["h100_sxm", "b200_sxm", "a100_sxm", "l40s", "mi300x", "gaudi3", "xeon_6767p"]),
    weights=st.sampled_from(["bf16", "fp8"]),
    tp=st.sampled_from([1, 2, 4, 8]),
    batch=st.integers(1, 4096),
    context=st.integers(1, 100_000),
)
def test_decode_never_beats_the_data_sheet(
    config: dict[str, object], name: str, weights: str, tp: int, batch: int, context: int
) -> None:
    step = model(config, name, weights, tp)
    arch, dev = step.setup.architecture, step.setup.device
    seconds = float(step.decode_ms(batch, context)) / 1e3
    moe = sum(arch.moe_layers)
    active = arch.active_parameters - arch.embedding_parameters
    touched = 2.0 * batch * active / tp
    # Every dense weight is read once; of the experts at least those of one token.
    read = active * bytes_of(weights) / tp if not moe else (active * bytes_of(weights) / tp) * 0.999
    kv = batch * context * sum(b.mixer.kv_elements_per_token for b in arch.blocks) * 2.0 / tp
    assert seconds >= touched / dev.flops_for(weights) * 0.999
    assert seconds >= (read + kv) / dev.memory_bandwidth_bytes_per_s * 0.98


@given(tokens=st.integers(1, 65_536), tp=st.sampled_from([1, 2, 4, 8]), config=st.sampled_from([DENSE, EXPERTS]))
def test_prefill_never_beats_the_data_sheet(tokens: int, tp: int, config: dict[str, object]) -> None:
    step = model(config, "h100_sxm", "fp8", tp)
    arch = step.setup.architecture
    active = arch.active_parameters - arch.embedding_parameters - arch.head_parameters
    flops = 2.0 * tokens * active / tp
    assert float(step.prefill_ms(tokens)) / 1e3 >= flops / step.setup.device.flops_for("fp8") * 0.999


@given(
    batch=st.integers(1, 2000),
    context=st.integers(1, 50_000),
    more=st.integers(1, 2000),
    config=st.sampled_from([DENSE, EXPERTS]),
)
def test_more_work_never_takes_less_time(batch: int, context: int, more: int, config: dict[str, object]) -> None:
    step = model(config, "h200_sxm", "bf16", 2)
    base = float(step.decode_ms(batch, context))
    assert float(step.decode_ms(batch + more, context)) >= base * (1 - 1e-9)
    assert float(step.decode_ms(batch, context + more)) >= base
    assert float(step.step_ms(more, batch, context)) >= base
    assert float(step.prefill_ms(batch + more)) >= float(step.prefill_ms(batch)) * (1 - 1e-9)


def test_step_is_vectorised_by_broadcasting() -> None:
    step = model(DENSE, "h100_sxm", "fp8", 2)
    grid = step.decode_ms(np.array([1, 8, 64])[:, None], np.array([100, 1000]))
    assert grid.shape == (3, 2)
    assert grid[1, 1] == pytest.approx(float(step.decode_ms(8, 1000)))


def test_distinct_experts_is_the_occupancy_expectation() -> None:
    assert float(distinct_experts(8.0, 2.0, 1.0)) == pytest.approx(2.0)
    assert float(distinct_experts(8.0, 2.0, 10_000)) == pytest.approx(8.0)
    assert float(distinct_experts(256.0, 8.0, 32)) == pytest.approx(256 * (1 - (1 - 8 / 256) ** 32))
    assert float(distinct_experts(0.0, 0.0, 32)) == 0.0


@given(a=st.floats(0, 1e3), b=st.floats(0, 1e3), p=st.floats(1, 16))
def test_smooth_max_lies_between_max_and_sum(a: float, b: float, p: float) -> None:
    value = float(smooth_max(np.asarray(a), np.asarray(b), np.asarray(p)))
    assert max(a, b) <= value * (1 + 1e-12)
    assert value <= (a + b) * (1 + 1e-9)


def test_tensor_parallelism_over_the_network_is_slower_than_inside_the_node() -> None:
    near, far = model(DENSE, "h100_sxm", "bf16", 8), model(DENSE, "h100_sxm", "bf16", 16)
    assert float(far.decode_ms(64, 100)) > float(near.decode_ms(64, 100))


def test_pipeline_parallelism_does_not_shorten_one_token() -> None:
    whole, piped = model(DENSE, "h100_sxm", "bf16"), model(DENSE, "h100_sxm", "bf16", pp=4)
    assert float(piped.decode_ms(1, 1000)) >= float(whole.decode_ms(1, 1000))

"""What goes into the training table and what the fit of the constants may teach a request."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from foundry_sim.physics.step import Shape, experts_s
from foundry_sim.physics.terms import take
from foundry_sim.train import fit_physics
from foundry_sim.train.collect import originals
from foundry_sim.train.dataset import Dataset, load
from foundry_sim.train.fit import fitted_table
from foundry_sim.train.readers.inferencex import silicon

ROW = {
    "mode": "agg",
    "spec": "none",
    "backend": "vllm",
    "backend_version": "0.17.0",
    "model_path": "moonshotai/Kimi-K2.5",
    "system": "b200_sxm",
    "precision": "nvfp4",
    "batch_size": "4",
    "gemm_quant_mode": "nvfp4",
    "moe_quant_mode": "nvfp4",
    "tp_size": "8",
    "pp_size": "1",
    "attention_dp_size": "1",
    "moe_tp_size": "8",
    "moe_ep_size": "1",
    "isl": "1024",
    "osl": "1024",
    "conc": "4",
}
DATED = ROW | {"origin": "inferencex", "date": "2026-03-27", "ttft_mean_ms": "163.725", "tpot_mean_ms": "7.42326"}
COPY = ROW | {"origin": "gap-csv", "date": "", "ttft_mean_ms": "163.73", "tpot_mean_ms": "7.42"}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(known_speculation=False)


def test_undated_copies_of_dated_runs_are_left_out() -> None:
    other = COPY | {"tpot_mean_ms": "8.42"}
    kept = originals(list(silicon([DATED, COPY, other])))
    assert [(m.date, m.tpot_ms_mean) for m in kept] == [("2026-03-27", 7.42326), ("", 8.42)]


def test_a_copy_without_an_original_has_the_same_mean_lengths() -> None:
    (alone,) = silicon([COPY])
    assert (alone.source, alone.isl) == ("silicon-inferencex", pytest.approx(921.6))


def test_a_request_gets_no_constants_of_a_benchmark(data: Dataset) -> None:
    fitted = fitted_table()
    odd: dict[str, Any] = {source: {"burst": 9.0, "prefill_us": 9.0} for source in fitted["sources"]}
    assert odd
    plain, other = (fit_physics.apply(t, data) for t in (fitted, {**fitted, "sources": odd}))
    np.testing.assert_array_equal(plain.burst, other.burst)
    np.testing.assert_array_equal(plain.prefill_s, other.prefill_s)


def test_expert_parallelism_spares_a_rank_the_traffic_of_activations(data: Dataset) -> None:
    row = next(i for i, m in enumerate(data.rows) if m.model == "deepseek-ai/DeepSeek-R1")
    terms = take(data.frame.terms, np.array([row]))
    tokens = np.array([8192.0])
    whole, split = (experts_s(terms, Shape.of(8, ep=ep), tokens) for ep in (1, 8))
    narrow = replace(terms, hidden=terms.hidden * 0.0)
    assert split < whole
    assert experts_s(narrow, Shape.of(8, ep=8), tokens) == experts_s(narrow, Shape.of(8), tokens)

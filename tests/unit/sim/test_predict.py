"""The request's way: parsed, resolved, predicted; and every hostile line answered with one line."""

import json
from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foundry_cli.sim import sim_app
from foundry_sim.errors import SimulatorError
from foundry_sim.facts.architecture import resolve
from foundry_sim.facts.devices import device
from foundry_sim.facts.engines import engine_name
from foundry_sim.facts.precision import Precision
from foundry_sim.predict import Load, PredictionRequest, predict, predict_arrays
from foundry_sim.predict_io import predict_lines
from foundry_sim.requests import parse, undouble
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

MODELS = Path(__file__).parents[3] / "examples" / "models"
ROW: dict[str, Any] = {
    "id": "a",
    "model": "meta-llama/Llama-3.1-70B",
    "device": "h100_sxm",
    "engine": "vllm",
    "precision": {"weights": "fp8", "activations": None, "kv": None, "moe": None},
    "tp": 4,
    "pp": 1,
    "ep": 1,
    "dp": 1,
    "isl": 921.6,
    "osl": 921.6,
    "load": {"kind": "closed", "concurrency": 16},
    "spec_decode": None,
}


def one(**changes: Any) -> Any:
    return predict([parse(ROW | changes)])[0]


@pytest.mark.parametrize("method", ["regressor", "heuristic"])
def test_prediction_is_ordered_and_bounded(method: Any) -> None:
    p: Any = predict([parse(ROW)], method)[0]
    assert p.error is None and p.fits and p.method == method
    for spread in (p.ttft_ms, p.tpot_ms, p.e2e_ms):
        assert spread is not None
        assert 0 < spread.lo < spread.mean < spread.hi
        assert spread.p50 <= spread.p95 <= spread.p99
    assert p.per_gpu == pytest.approx(p.output_tokens_per_s / 4)


def test_closed_loop_throughput_is_what_its_latencies_allow() -> None:
    p = one()
    assert p.output_tokens_per_s == pytest.approx(16 * 921.6 / (p.e2e_ms.mean / 1e3), rel=1e-6)


def test_more_clients_wait_longer_and_get_more_out_of_the_engine() -> None:
    few, many = one(load={"kind": "closed", "concurrency": 2}), one(load={"kind": "closed", "concurrency": 128})
    assert many.tpot_ms.mean > few.tpot_ms.mean
    assert many.output_tokens_per_s > few.output_tokens_per_s


def test_what_does_not_fit_says_so() -> None:
    p = one(tp=1, precision={"weights": "bf16"})
    assert not p.fits and not p.in_domain
    assert p.memory is not None and "GiB" in p.memory.reason


@pytest.mark.parametrize("name", ["b300_sxm", "gb300", "rtx_pro_6000", "mi325x", "gaudi3", "l40s", "xeon_6767p"])
@pytest.mark.parametrize(
    "kind", [{"kind": "closed", "concurrency": 8}, {"kind": "open", "rate": 0.5}, {"kind": "offline"}]
)
def test_every_kind_of_device_and_load_is_covered(name: str, kind: dict[str, Any]) -> None:
    p = one(model="meta-llama/Llama-3.1-8B", device=name, tp=1, load=kind, precision={"weights": "bf16"})
    assert p.error is None and p.output_tokens_per_s > 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"device": "abacus"}, "abacus"),
        ({"model": "nobody/nothing"}, "nobody/nothing"),
        ({"model": 7}, "model"),
        ({"tp": 0}, "tp"),
        ({"tp": 1.5}, "tp"),
        ({"isl": -1}, "isl"),
        ({"isl": float("nan")}, "isl"),
        ({"isl": 10**400}, "isl"),
        ({"osl": -(10**400)}, "osl"),
        ({"tp": 10**400}, "tp"),
        ({"max_num_seqs": 10**400}, "max_num_seqs"),
        ({"load": {"kind": "closed", "concurrency": 10**400}}, "concurrency"),
        ({"load": {"kind": "open", "rate": 10**400}}, "rate"),
        ({"date": 10**400}, "date"),
        ({"precision": {"weights": 10**400}}, "1000"),
        ({"osl": "many"}, "osl"),
        ({"load": {"kind": "magic"}}, "load"),
        ({"load": None}, "load"),
        ({"precision": {"weights": "fp99"}}, "fp99"),
        ({"precision": {"colour": "red"}}, "colour"),
        ({"engine": 5}, "engine"),
        ({"engine": "trtllm", "device": "mi300x"}, "NVIDIA"),
        ({"engine": "vlm"}, "known are vllm"),
        ({"osl": 0}, "generates text"),
        ({"osl": None}, "osl is required"),
        ({"load": {"kind": "closed"}}, "concurrency is required"),
        ({"model": "BAAI/bge-m3", "tp": 1, "engine": "trtllm"}, "use vllm or sglang"),
        ({"model": "BAAI/bge-m3", "tp": 1, "load": {"kind": "open", "rate": 1e6}}, "more requests arrive"),
        ({"tp": 3}, "64 attention heads"),
        ({"pp": 64, "model": "meta-llama/Llama-3.1-8B"}, "32 layers"),
        ({"model": "deepseek-ai/DeepSeek-R1", "tp": 8, "ep": 3}, "ep=3 does not divide"),
        ({"model": "Qwen/Qwen3-30B-A3B", "tp": 16, "dp": 16, "ep": 256}, "128 experts"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], word: str) -> None:
    line = json.dumps(ROW | changes).encode()
    answer = next(iter(predict_lines([line])))
    assert answer.error is not None and word in answer.error and "\n" not in answer.error
    assert answer.id == "a"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(sorted(ROW)), JSON, max_size=3))
def test_no_line_aborts_the_batch(changes: dict[str, Any]) -> None:
    lines = [json.dumps(ROW).encode(), json.dumps(ROW | changes).encode(), b"{", b"[" * 5000, json.dumps(ROW).encode()]
    answers = list(predict_lines(lines))
    assert len(answers) == 5
    assert answers[0].error is None and answers[4].error is None
    assert answers[2].error and answers[3].error
    json.dumps([a.as_dict() for a in answers], allow_nan=False)


def test_rows_do_not_influence_each_other() -> None:
    other = parse(ROW | {"id": "b", "model": "deepseek-ai/DeepSeek-R1", "device": "b200_sxm", "tp": 8})
    alone: Any = predict([parse(ROW)])[0]
    together: Any = predict([other, parse(ROW)])[1]
    # The smooth corrections are sums in 32 bit, whose order depends on the number of rows.
    assert together.tpot_ms.mean == pytest.approx(alone.tpot_ms.mean, rel=1e-6)


def test_arrays_agree_with_requests() -> None:
    request = parse(ROW | {"max_num_seqs": 256})
    single = predict([request])[0]
    assert single.memory is not None and single.tpot_ms is not None
    found = predict_arrays(
        resolve("meta-llama/Llama-3.1-70B"),
        device("h100_sxm"),
        Precision("fp8", "fp8", "bf16"),
        tp=np.array([4, 4, 8]),
        isl=921.6,
        osl=921.6,
        load=16,
        kv_tokens=float(single.memory.kv_tokens),
        max_sequences=256,
    )
    assert found.outcome.tpot_ms.mean[0] == pytest.approx(single.tpot_ms.mean, rel=1e-3)
    assert found.outcome.tpot_ms.mean.shape == (3,)
    assert found.outcome.tpot_ms.mean[2] < found.outcome.tpot_ms.mean[1]


def test_parallel_sizes_that_sources_count_twice_are_undone() -> None:
    b200 = device("b200_sxm")
    assert undouble(64, 1, 8, b200, 256) == (8, 1, 8)
    assert undouble(1, 64, 8, b200, 256) == (1, 8, 8)
    assert undouble(4, 4, 16, b200, 256) == (1, 4, 4)
    assert undouble(72, 1, 1, device("gb200"), 256) == (1, 72, 72)
    assert undouble(16, 1, 1, device("gb200"), 8) == (16, 1, 1)
    assert undouble(1, 1, 8, b200, 256) == (1, 8, 8)
    assert undouble(4, 1, 8, b200, 256) == (4, 2, 8)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("b200_sxm", (8, 1, 8)),
        ("b200_sxm", (2, 4, 8)),
        ("b200_sxm", (8, 8, 8)),
        ("h100_sxm", (8, 8, 64)),
        ("h100_sxm", (8, 4, 32)),
        ("gb200", (4, 4, 16)),
        ("gb200", (16, 1, 16)),
        ("gb200", (12, 3, 36)),
    ],
)
def test_parallel_sizes_that_can_be_meant_are_taken_as_written(name: str, written: tuple[int, int, int]) -> None:
    assert undouble(*written, device(name), 256) == written


@pytest.mark.parametrize(
    ("written", "meant"),
    [("TensorRT-LLM (PyTorch backend)", "trtllm"), ("dynamo-sglang", "sglang"), ("sgl", "sglang"), ("vLLM 0.8", "vllm"),
     ("Deepspeed-MII", "deepspeed-mii"), ("TGIS (IBM)", "tgi"), ("text-generation-inference", "tgi")],
)  # fmt: skip
def test_engines_go_by_many_names(written: str, meant: str) -> None:
    assert engine_name(written) == meant


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "Qwen/Qwen2.5-7B-Instruct", "tp": 8, "engine": "deepspeed"},
        {"model": "deepseek-ai/DeepSeek-R1", "tp": 36, "device": "gb200", "engine": "trtllm"},
        {"model": "deepseek-ai/DeepSeek-R1", "tp": 12, "ep": 12, "device": "gb200", "engine": "trtllm"},
        {"ep": 4},
    ],
)
def test_unusual_splits_that_ran_or_mean_nothing_are_answered(changes: dict[str, Any]) -> None:
    assert one(**changes).error is None


@pytest.mark.parametrize("method", ["regressor", "heuristic"])
@pytest.mark.parametrize(
    ("changes", "measured"),
    [({}, True), ({"device": "b300_sxm"}, False), ({"model": "Qwen/Qwen2.5-7B-Instruct"}, False)],
)
def test_both_methods_say_alike_what_was_measured(method: Any, changes: dict[str, Any], measured: bool) -> None:
    assert predict([parse(ROW | changes)], method)[0].in_domain == measured


def test_vectors_offline_are_full_batches() -> None:
    changes = {"model": "BAAI/bge-m3", "tp": 1, "precision": {}, "isl": 512, "osl": 0}
    offline, crowd = (
        one(**changes, load={"kind": "offline"}),
        one(**changes, load={"kind": "closed", "concurrency": 999}),
    )
    assert offline.requests_per_s == pytest.approx(crowd.requests_per_s)
    assert offline.e2e_ms.mean < crowd.e2e_ms.mean


def test_lengths_beyond_the_context_are_answered_outside_the_domain() -> None:
    within, beyond = one(isl=100_000), one(isl=200_000)
    assert within.error is beyond.error is None
    assert within.in_domain and beyond.fits and not beyond.in_domain


def test_a_dense_model_is_split_as_written() -> None:
    p = one(model="meta-llama/Llama-3.1-405B", device="gb200", tp=16, precision={})
    assert p.error is None and p.fits
    assert p.per_gpu == pytest.approx(p.output_tokens_per_s / 16)
    assert p.memory.weight_bytes < 60e9  # 812 GB over 16 devices


def test_the_command_writes_a_line_per_line(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(ROW) + "\nnonsense\n\n")
    result = CliRunner().invoke(sim_app, ["predict", "--input", str(source), "--output", str(target)])
    assert result.exit_code == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [r["id"] for r in rows] == ["a", ""]
    assert set(rows[0]) >= {"id", "fits", "ttft_ms", "tpot_ms", "e2e_ms", "output_tokens_per_s", "per_gpu", "error"}
    assert set(rows[0]["ttft_ms"]) == {"mean", "p50", "p95", "p99", "lo", "hi"}


def test_the_command_explains_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(sim_app, ["predict", "--input", "/no/file", "--output", str(tmp_path / "out.jsonl")])
    assert result.exit_code == 1
    assert result.output.startswith("error: /no/file: ")
    assert list(tmp_path.iterdir()) == []


def test_the_command_overwrites_no_input_and_says_when_there_is_none(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n")

    def run(*paths: Path) -> Any:
        return CliRunner().invoke(sim_app, ["predict", "--input", str(paths[0]), "--output", str(paths[1])])

    before = source.read_bytes()
    refused = run(source, tmp_path / "." / "in.jsonl")
    assert refused.exit_code == 1 and "both --input and --output" in refused.output and source.read_bytes() == before
    assert "1 rows, 0 with an error" in run(source, target).output  # byte order mark and CRLF are taken
    assert f"error: {tmp_path}: " in run(source, tmp_path).output
    source.write_text("\n")
    assert "holds no request" in run(source, target).output


def test_library_requests_are_checked_too() -> None:
    request = PredictionRequest("meta-llama/Llama-3.1-8B", "h100_sxm", 100, 100, Load("closed", 4), tp=-3)
    assert predict([request])[0].error
    with pytest.raises(SimulatorError):
        parse([])


@pytest.mark.parametrize("name", ["a", 17, 0, "", 1.5, None, True, 10**400, "x" * 1000])
def test_answers_carry_the_id_as_it_came(name: Any) -> None:
    rows = [ROW | {"id": name}, ROW | {"id": name, "device": "abacus"}]
    found = [answer.as_dict()["id"] for answer in predict_lines(json.dumps(row).encode() for row in rows)]
    assert found == [name, name]


@pytest.mark.parametrize("name", ["x" * 1001, 10**1001, [1], {"a": 1}, float("nan")])
def test_an_id_that_cannot_be_given_back_is_an_error(name: Any) -> None:
    answer = next(iter(predict_lines([json.dumps(ROW | {"id": name}).encode()])))
    assert answer.id == "" and answer.error is not None and answer.error.startswith("id must")


def numbers(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all numbers in a config."""
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from numbers(value, (*path, key))
    elif isinstance(config, int | float) and not isinstance(config, bool):
        yield path


@pytest.mark.parametrize("name", ["llama-3.1-8b-instruct.json", "deepseek-v2-lite.json"])
def test_a_huge_number_anywhere_in_a_config_or_draft_aborts_nothing(name: str) -> None:
    text = (MODELS / name).read_text()
    rows = [ROW | {"spec_decode": {"num_speculative_tokens": 10**400, "acceptance_rate": 10**400}}]
    for *parents, last in numbers(json.loads(text)):
        config = json.loads(text)
        reduce(getitem, parents, config)[last] = 10**400
        rows.append(ROW | {"model": config})
    answers = list(predict_lines(json.dumps(row).encode() for row in rows))
    assert len(answers) == len(rows) > 10 and answers[0].error is None


def _loads(kind: str, name: str, values: list[float], isl: int, osl: int) -> list[Any]:
    row = {"id": "", "model": "meta-llama/Llama-3.1-8B-Instruct", "device": "h100_sxm", "engine": "vllm", "tp": 1}
    loads = [{"kind": kind, name: value} if value else {"kind": kind} for value in values]
    return predict([parse({**row, "isl": isl, "osl": osl, "load": load}) for load in loads])


def test_clients_beyond_the_cache_add_no_throughput() -> None:
    [offline] = _loads("offline", "", [0], 128, 4096)
    crowded = _loads("closed", "concurrency", [512, 2048, 10_000], 128, 4096)
    for found, clients in zip(crowded, (512, 2048, 10_000), strict=True):
        assert found.output_tokens_per_s < 1.1 * offline.output_tokens_per_s
        assert found.e2e_ms.mean / 1e3 == pytest.approx(clients * 4096 / found.output_tokens_per_s, rel=1e-3)


def test_a_longer_queue_slows_no_token_of_those_that_run() -> None:
    """Evicted requests wait before new ones: on measured pairs twice the queue changed TPOT by less than 1 %."""
    some, many, most = _loads("closed", "concurrency", [1200, 4096, 100_000], 1024, 256)
    assert many.tpot_ms.mean == pytest.approx(some.tpot_ms.mean, rel=0.05)
    assert most.tpot_ms.mean == pytest.approx(some.tpot_ms.mean, rel=0.05)
    assert some.ttft_ms.mean < many.ttft_ms.mean < most.ttft_ms.mean


def test_queues_longer_than_any_that_was_measured_are_outside_the_data() -> None:
    assert [p.in_domain for p in _loads("closed", "concurrency", [64, 900, 4096], 1024, 256)] == [True, True, False]
    assert [p.in_domain for p in _loads("open", "rate", [1, 10, 100], 1024, 256)] == [True, True, False]


def test_prompts_of_an_open_loop_wait_for_each_other() -> None:
    """Short answers: the prefills alone fill the device, and M/D/1 says how long one waits."""
    calm, busy, full = (found.ttft_ms.mean for found in _loads("open", "rate", [0.1, 4, 8], 8000, 1))
    assert 2 * calm < busy < 10 * calm < full


def test_more_arrivals_never_shorten_the_wait_and_what_is_served_stays() -> None:
    rates = [1.0, 5, 10, 15, 20, 22, 24, 26, 30, 60, 200, 1000]
    found = _loads("open", "rate", rates, 1024, 256)
    waits = [p.ttft_ms.mean for p in found]
    assert all(later >= 0.98 * sooner for sooner, later in pairwise(waits))
    served = [p.output_tokens_per_s / 256 for p in found]
    assert served[:5] == pytest.approx(rates[:5]) and served[-1] == pytest.approx(served[-2], rel=0.02)

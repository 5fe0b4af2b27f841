"""A user's points move predictions near them, not others, and can be taken back."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from foundry_cli.main import app
from foundry_sim.calibration import Calibration, predict_calibrated
from foundry_sim.errors import ConfigurationError
from foundry_sim.predict import predict
from foundry_sim.requests import parse
from foundry_sim.search.plans import DeviceGroup, SimulationRequest, Workload
from foundry_sim.search.search import simulate
from typer.testing import CliRunner

ROW: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B",
    "device": "h100_sxm",
    "engine": "vllm",
    "tp": 1,
    "isl": 1000,
    "osl": 500,
    "load": {"kind": "closed", "concurrency": 16},
}


def tpot(row: dict[str, Any], calibration: Calibration | None = None) -> Any:
    request = parse(row)
    found = predict_calibrated([request], calibration)[0] if calibration else predict([request])[0]
    assert found.tpot_ms is not None
    return found.tpot_ms


def slower(row: dict[str, Any], factor: float) -> dict[str, Any]:
    return row | {"measured": {"tpot_ms": tpot(row).mean * factor, "ttft_ms": None}}


def test_points_move_their_own_prediction_and_narrow_it() -> None:
    calibrated = Calibration().add([slower(ROW, 1.5)] * 4)
    before, after = tpot(ROW), tpot(ROW, calibrated)
    assert 1.3 < after.mean / before.mean < 1.5
    assert after.hi / after.lo < before.hi / before.lo
    assert after.lo < after.mean < after.hi


@pytest.mark.parametrize("pairs", [1, 5, 25])
def test_points_that_contradict_each_other_widen_the_interval(pairs: int) -> None:
    calibrated = Calibration().add([slower(ROW, 4.0), slower(ROW, 0.25)] * pairs)
    before, after = tpot(ROW), tpot(ROW, calibrated)
    assert after.lo < 0.25 * before.mean < before.lo and before.hi < 4.0 * before.mean < after.hi


def test_a_search_takes_points_as_a_prediction_does() -> None:
    points = Calibration().add([slower(ROW, 4.0), slower(ROW, 0.25), slower(ROW, 2.0)])
    fields: dict[str, Any] = {
        "model": ROW["model"],
        "device_groups": [DeviceGroup(name="one", device="h100_sxm", devices_per_node=1)],
        "workload": Workload(input_tokens=1000, output_tokens=500, concurrency=16),
        "engines": ["vllm"],
    }
    plain, moved = (
        simulate(SimulationRequest(**fields, calibration=known)).plans[0].predicted.tpot_ms
        for known in ([], [asdict(point) for point in points.points])
    )
    before, after = tpot(ROW), tpot(ROW, points)
    for name in ("mean", "lo", "hi"):
        change = getattr(after, name) / getattr(before, name)
        assert getattr(moved, name) / getattr(plain, name) == pytest.approx(change, rel=0.02), name


def test_neighbours_move_less_and_strangers_not_at_all() -> None:
    calibrated = Calibration().add([slower(ROW, 1.5)])
    near = ROW | {"load": {"kind": "closed", "concurrency": 64}}
    own, neighbour = (tpot(r, calibrated).mean / tpot(r).mean for r in (ROW, near))
    assert 1.0 < neighbour < own
    for stranger in (ROW | {"device": "b200_sxm"}, ROW | {"model": "Qwen/Qwen3-8B"}):
        assert tpot(stranger, calibrated).mean == pytest.approx(tpot(stranger).mean)


@pytest.mark.parametrize("split", [{"dp": 8}, {"pp": 8}])
def test_a_measured_split_says_little_of_other_splits_over_as_many_devices(split: dict[str, int]) -> None:
    calibrated = Calibration().add([slower(ROW | {"tp": 8}, 1.5)])
    own, half, other = (
        tpot(row, calibrated).mean / tpot(row).mean
        for row in (ROW | {"tp": 8}, ROW | {"tp": 4}, ROW | {"tp": 1} | split)
    )
    assert 1.0 < other < 1.02 < half < own


def test_rows_are_corrected_together_as_they_are_alone() -> None:
    points = [slower(ROW, 1.5), slower(ROW | {"tp": 2, "isl": 300}, 0.7), slower(ROW | {"engine": "sglang"}, 2.0)]
    calibrated = Calibration().add(points)
    rows = [parse(ROW | {"osl": 400 + n, "device": ("h100_sxm", "abacus")[n % 5 == 4]}) for n in range(300)]
    together = predict_calibrated(rows, calibrated)
    for n in (0, 4, 255, 256, 299):
        [alone] = predict_calibrated([rows[n]], calibrated)
        assert alone.error == together[n].error and (alone.error is None) == (n % 5 != 4)
        if alone.e2e_ms and together[n].e2e_ms:
            assert alone.e2e_ms.mean == pytest.approx(together[n].e2e_ms.mean, rel=1e-5)


def test_times_of_vectors_are_corrected_and_have_no_pace() -> None:
    row = ROW | {"model": "BAAI/bge-m3", "osl": 0, "isl": 400}
    [plain] = predict([parse(row)])
    assert plain.ttft_ms
    calibrated = Calibration().add([row | {"measured": {"ttft_ms": 2 * plain.ttft_ms.mean}}])
    [moved] = predict_calibrated([parse(row)], calibrated)
    assert moved.e2e_ms and moved.requests_per_s and plain.e2e_ms and plain.requests_per_s
    factor = moved.e2e_ms.mean / plain.e2e_ms.mean
    assert 1.3 < factor < 2 and moved.requests_per_s == pytest.approx(plain.requests_per_s / factor)
    with pytest.raises(ConfigurationError, match="writes no tokens"):
        Calibration().add([row | {"measured": {"tpot_ms": 5}}])


def test_names_of_one_thing_are_one_thing() -> None:
    calibrated = Calibration().add([slower(ROW | {"model": "Qwen/Qwen3-8B"}, 1.5)])
    plain, moved = tpot(ROW | {"model": "Qwen/Qwen3-8B"}), tpot(ROW | {"model": "Qwen/Qwen3-8B"}, calibrated)
    for other in (
        {"model": "qwen3-8b"},
        {"device": "H100-SXM"},
        {"engine": "vLLM"},
        {"precision": {"weights": "bf16"}},
    ):
        found = tpot(ROW | {"model": "Qwen/Qwen3-8B"} | other, calibrated)
        assert found.mean == pytest.approx(moved.mean) != pytest.approx(plain.mean), other


def test_a_stored_point_that_cannot_be_read_any_more_makes_no_calibration() -> None:
    text = Calibration().add([slower(ROW, 1.5)]).to_json().replace("h100_sxm", "abacus")
    with pytest.raises(ConfigurationError, match="not a calibration"):
        Calibration.from_json(text)


@pytest.mark.parametrize("value", [0, -1, "x", float("nan"), 5e-324])
@pytest.mark.parametrize("name", ["tpot_ms", "predicted_tpot_ms"])
def test_a_stored_point_that_nothing_can_be_divided_by_makes_no_calibration(name: str, value: object) -> None:
    kept = json.loads(Calibration().add([slower(ROW, 1.5)]).to_json())
    kept["history"][1][0][name] = value
    with pytest.raises(ConfigurationError, match="not a calibration"):
        Calibration.from_json(json.dumps(kept))


def test_points_taken_together_are_those_taken_one_by_one() -> None:
    measured = [ROW | {"isl": 100 * n, "measured": {"ttft_ms": n, "tpot_ms": 10 * n}} for n in (3, 1, 2)]
    alone = [Calibration().add([one]).points[0] for one in measured]
    for one, other in zip(Calibration().add(measured).points, alone, strict=True):
        assert (one.row, one.ttft_ms, one.tpot_ms) == (other.row, other.ttft_ms, other.tpot_ms)
        assert one.predicted_ttft_ms == pytest.approx(other.predicted_ttft_ms, rel=1e-5)
        assert one.predicted_tpot_ms == pytest.approx(other.predicted_tpot_ms, rel=1e-5)


def test_times_too_short_to_compare_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="positive number"):
        Calibration().add([ROW | {"measured": {"tpot_ms": 5e-324}}])


def test_versions_can_be_taken_back_and_stored() -> None:
    first = Calibration().add([slower(ROW, 1.5)])
    second = first.add([slower(ROW, 0.5)])
    back = second.revert(first.version)
    assert (first.version, second.version, back.version) == (1, 2, 3)
    assert tpot(ROW, back).mean == pytest.approx(tpot(ROW, first).mean)
    assert second.revert(0).points == ()
    assert Calibration.from_json(second.to_json()) == second
    assert json.loads(second.to_json())["schema_version"] == 1


@pytest.mark.parametrize(
    "bad",
    [{}, {"measured": {}}, {"measured": {"tpot_ms": -1}}, {"measured": {"tpot_ms": True}}, {"measured": 3}],
)
def test_bad_points_are_refused_whole(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Calibration().add([slower(ROW, 1.1), ROW | bad])


def test_bad_versions_and_texts_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        Calibration().revert(7)
    for text in ("", "[]", "{}", '{"history": [[{"x": 1}]], "version": 0}'):
        with pytest.raises(ConfigurationError):
            Calibration.from_json(text)


def test_the_command_keeps_versions_and_predict_uses_them(tmp_path: Path) -> None:
    kept, points, rows = tmp_path / "own.json", tmp_path / "points.jsonl", tmp_path / "rows.jsonl"
    plain = predict([parse(ROW)])[0]
    assert plain.tpot_ms
    points.write_text(json.dumps({**ROW, "measured": {"tpot_ms": 2 * plain.tpot_ms.mean}}) + "\n")
    rows.write_text(json.dumps(ROW) + "\n")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["sim", *arguments])

    assert "version 1: 1 points  ← in force" in run("calibrate", str(kept), "--points", str(points)).output
    told = ["--input", str(rows), "--output", str(tmp_path / "out.jsonl"), "--calibration", str(kept)]
    assert run("predict", *told).exit_code == 0
    moved = json.loads((tmp_path / "out.jsonl").read_text())["tpot_ms"]["mean"]
    assert 1.4 < moved / plain.tpot_ms.mean < 2.0
    assert "version 2: 0 points  ← in force" in run("calibrate", str(kept), "--revert", "0").output
    assert run("predict", *told).exit_code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["tpot_ms"]["mean"] == pytest.approx(plain.tpot_ms.mean)
    refused = run("calibrate", str(kept), "--revert", "9")
    assert refused.exit_code == 1 and "does not exist" in refused.output
    nowhere = run("calibrate", str(tmp_path / "none" / "own.json"), "--points", str(points))
    assert nowhere.exit_code == 1 and f"{Path('none') / 'own.json'}: No such file" in nowhere.output
    points.write_text("[1]\n")
    assert run("calibrate", str(kept), "--points", str(points)).exit_code == 1

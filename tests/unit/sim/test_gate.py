"""The regression gate: predictions stay what they were, held-out errors stay below their ceilings, training repeats.

After a deliberate change: `foundry sim validate --refit`, `foundry sim train`, then
`python tests/unit/sim/make_snapshot.py`, and say in the commit what became better or worse.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from foundry_sim.learned.regressor import HEADS, MODELS
from foundry_sim.learned.regressor import load as load_regressor
from foundry_sim.predict import predict
from foundry_sim.predict_io import predict_lines
from foundry_sim.requests import parse
from foundry_sim.train import heldout, tails
from foundry_sim.train.dataset import Dataset, fully_known, load
from foundry_sim.train.decisions import decide, summary
from foundry_sim.train.fit import fitted_table
from foundry_sim.train.fit_residual import Prepared, mean_forest
from foundry_sim.train.validate import LeftOut, left_out

HERE = Path(__file__).parent
SNAPSHOT = [json.loads(line) for line in (HERE / "snapshot.jsonl").read_text().splitlines()]
CEILINGS = json.loads((HERE / "ceilings.json").read_text())


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(known_speculation=False)


@pytest.fixture(scope="module")
def found(data: Dataset) -> dict[str, LeftOut]:
    return left_out(data)


@pytest.mark.parametrize("method", ["regressor", "heuristic"])
def test_predictions_are_those_of_the_snapshot(method: str) -> None:
    answers = predict([parse(row["request"]) for row in SNAPSHOT], method)  # type: ignore[arg-type]
    for row, answer in zip(SNAPSHOT, answers, strict=True):
        assert answer.error is None and answer.ttft_ms and answer.tpot_ms, row["request"]
        found = [answer.ttft_ms.mean, answer.tpot_ms.mean, answer.output_tokens_per_s]
        assert found == pytest.approx(row[method], rel=2e-3), row["request"]


def test_what_was_measured_is_never_refused(data: Dataset) -> None:
    """Loading resolves every row; some were longer than the model's own context."""
    cases = data.frame.cases
    long = [c.request for c in cases if c.request.isl + c.request.osl > c.architecture.max_position]
    assert len(long) > 100
    assert all(answer.error is None and not answer.in_domain for answer in predict(long))


@pytest.mark.parametrize("split", heldout.SPLITS)
def test_held_out_errors_stay_below_their_ceilings(split: str, data: Dataset, found: dict[str, LeftOut]) -> None:
    errors, widths = found[split].errors, found[split].widths
    for head in HEADS:
        ceiling = CEILINGS[split].get(head)
        known = np.isfinite(errors[head]) & data.current
        if not ceiling or not known.any():
            continue
        size = 100 * np.abs(np.expm1(errors[head][known]))
        inside = 100 * np.mean(np.abs(errors[head][known]) <= widths[head][known])
        assert size.mean() <= ceiling["mape"], (split, head)
        assert np.median(size) <= ceiling["median"], (split, head)
        assert ceiling["coverage"][0] <= inside <= ceiling["coverage"][1], (split, head)


@pytest.mark.parametrize("kind", ["all", "recorded"])
def test_decisions_stay_below_their_ceilings(kind: str, data: Dataset, found: dict[str, LeftOut]) -> None:
    recorded = np.array([kind == "all" or fully_known(m) for m in data.rows])
    picks = decide(data.rows, found["curve"].errors, found["curve"].widths, data.current & recorded)
    sure, ceiling = summary([pick for pick in picks if pick.promised]), CEILINGS["decisions"][kind]
    assert sure.count > 500
    assert 100 * sure.regret <= ceiling["regret"]
    assert 100 * sure.violations <= ceiling["violations"]
    assert 100 * (1 - sure.count / len(picks)) <= ceiling["unpromised"]


def test_held_out_percentiles_stay_below_their_ceilings(data: Dataset) -> None:
    found = tails.held_out(data, heldout.read_folds(), "curve")
    for name, ceiling in {"p50": 26.0, "p99": 38.0}.items():
        size = 100 * np.abs(np.expm1(found[name][np.isfinite(found[name])]))
        assert len(size) > 400 and size.mean() <= ceiling, name


def test_training_repeats_bit_for_bit(data: Dataset) -> None:
    """The cheapest head, trained again from the committed data, is the shipped one."""
    trained = load_regressor()
    assert trained is not None
    again = mean_forest(Prepared(data, fitted_table()), "rate", np.ones(len(data.rows), bool))
    for name in ("feature", "threshold", "leaf"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trained.heads["rate"].mean, name))


def test_model_files_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 2_000_000


def test_an_unseen_architecture_is_told_and_gets_a_wider_interval() -> None:
    known = SNAPSHOT[0]["request"]
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 7680,
        "num_hidden_layers": 77,
        "num_attention_heads": 60,
        "num_key_value_heads": 10,
        "intermediate_size": 26000,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    }
    answers = predict([parse(known), parse(known | {"model": config})])
    seen, new = (a.tpot_ms for a in answers)
    assert answers[0].in_domain and not answers[1].in_domain
    assert seen and new and new.hi / new.lo > seen.hi / seen.lo


def test_a_device_that_was_not_measured_is_told_though_its_memory_is_as_fast_as_that_of_one_that_was() -> None:
    known = next(row["request"] for row in SNAPSHOT if row["request"]["device"] == "b200_sxm")
    seen, new = predict([parse(known), parse(known | {"device": "b300_sxm"})])
    assert seen.in_domain and not new.in_domain
    assert seen.tpot_ms and new.tpot_ms and new.tpot_ms.hi / new.tpot_ms.lo > seen.tpot_ms.hi / seen.tpot_ms.lo


def test_software_newer_than_every_measurement_widens_the_interval() -> None:
    known = SNAPSHOT[0]["request"]
    measured, newer, newest = (
        predict([parse(known | {"date": date})])[0].tpot_ms for date in ("2026-04-01", "2027-02-01", "2027-03-01")
    )
    assert measured and newer and newest
    assert newer.hi / newer.lo > 1.1 * measured.hi / measured.lo
    assert newest.hi / newest.lo == pytest.approx(newer.hi / newer.lo, rel=0.2)


def test_five_thousand_rows_take_seconds() -> None:
    """Counts work, not seconds: a batch is laid out once, not row by row."""
    line = json.dumps(SNAPSHOT[0]["request"]).encode()
    assert sum(a.error is None for a in predict_lines([line] * 5000)) == 5000

"""The smooth correction of TTFT: exact where it is anchored, silent far away, and never above what trees may change."""

from dataclasses import replace

import numpy as np
from foundry_sim.learned.regressor import load as load_regressor
from foundry_sim.learned.smoother import Smoother
from hypothesis import given
from hypothesis import strategies as st


def _one(anchor: list[float], coefficient: float) -> Smoother:
    return Smoother(np.array([anchor], np.float32), np.array([coefficient], np.float32), 0.5, 0.0)


def test_an_anchor_keeps_its_own_correction_and_the_distance_weakens_it() -> None:
    model = _one([1.0, 2.0], 0.8)
    near, step, far = model.predict(np.array([[1, 2], [2, 2], [101, 2]], np.float32))
    assert near == np.float32(0.8)
    assert abs(step - 0.8 / 1.25**2) < 1e-5
    assert abs(far) < 1e-3


@given(st.integers(1, 1300))
def test_rows_do_not_depend_on_their_neighbours(count: int) -> None:
    model = _one([0.0, 0.0, 0.0], 1.0)
    rows = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    together = model.predict(rows)
    np.testing.assert_allclose(together[-1], model.predict(rows[-1:])[0], rtol=1e-5)


def test_the_shipped_first_token_correction_is_smooth_and_small() -> None:
    trained = load_regressor()
    assert trained is not None
    model = trained.heads["ttft"].mean
    assert isinstance(model, Smoother)
    assert model.anchors.shape == (len(model.coefficients), model.anchors.shape[1])
    nowhere = np.full((1, model.anchors.shape[1]), 1e4, np.float32)
    assert abs(model.predict(nowhere)[0] - model.offset) < 1e-2


def test_two_corrections_in_one_kernel_are_each_what_they_are_alone() -> None:
    trained = load_regressor()
    assert trained is not None
    first, token = trained.heads["ttft"].mean, trained.heads["tpot"].mean
    assert isinstance(first, Smoother) and isinstance(token, Smoother)
    np.testing.assert_array_equal(token.anchors, first.anchors)
    assert (token.sharpness, token.offset) == (first.sharpness, first.offset)
    rows = first.anchors[:50] + np.float32(0.1)
    both = replace(first, coefficients=np.stack([first.coefficients, token.coefficients], axis=1)).predict(rows)
    np.testing.assert_allclose(both, np.stack([first.predict(rows), token.predict(rows)], axis=1), rtol=1e-3, atol=1e-5)

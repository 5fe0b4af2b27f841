"""Money, time, identifiers and settings."""

from decimal import Decimal
from fractions import Fraction

import pytest
from foundry_core import clock, ids, money
from foundry_core.settings import Settings, table_name
from hypothesis import given
from hypothesis import strategies as st

nanos = st.integers(-(10**20), 10**20)


@given(nanos)
def test_money_survives_the_way_through_dollars(amount: int) -> None:
    assert money.from_usd(money.to_usd(amount)) == amount


@given(nanos, st.integers(-(10**12), 10**12), st.integers(1, 10**12))
def test_a_ratio_is_exact_and_rounds_half_to_even(amount: int, numerator: int, denominator: int) -> None:
    assert money.ratio(amount, numerator, denominator) == round(Fraction(amount * numerator, denominator))


@pytest.mark.parametrize("bad", ["", "a", "1,5", "NaN", "Infinity", "-inf", "1e999999999"])
def test_what_is_no_amount(bad: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        money.from_usd(bad)


def test_amounts_as_people_read_them() -> None:
    assert money.format_usd(1_234_500_000_000) == "$1,234.50"
    assert money.format_usd(-1, 9) == "-$0.000000001"
    assert money.from_usd(Decimal("0.0000000005")) == 0  # half to even


def test_the_clock_can_be_stopped() -> None:
    with clock.fixed(0):
        assert clock.iso(clock.now_ms()) == "1970-01-01T00:00:00.000Z"
        with clock.fixed(1_767_225_600_123):
            assert clock.iso(clock.now_ms()) == "2026-01-01T00:00:00.123Z"
        assert clock.now_ms() == 0
    assert clock.now_ms() > 1_700_000_000_000


@given(st.lists(st.integers(0, 2**45), min_size=2, max_size=5))
def test_identifiers_sort_by_time_and_never_repeat(times: list[int]) -> None:
    made = []
    for at_ms in times:
        with clock.fixed(at_ms):
            made.append(ids.new_id("x"))
    assert len(set(made)) == len(made) and all(len(one) == 28 for one in made)
    assert [one[:12] for one in sorted(made)] == [one[:12] for _, one in sorted(zip(times, made, strict=True))]


def test_secrets_are_long_and_different() -> None:
    made = {ids.new_secret("fk") for _ in range(100)}
    assert len(made) == 100 and all(one.startswith("fk-") and len(one) == 46 for one in made)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATE_ARN", "arn:simulate")
    found = Settings()
    assert found.state_machine("simulate") == "arn:simulate"
    for kind in ("deploy_model", "nonsense"):
        with pytest.raises(LookupError):
            found.state_machine(kind)


def test_a_table_is_named_by_its_variable_or_by_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_name("app") == "foundry-test-app"
    monkeypatch.setenv("APP_TABLE", "other")
    assert table_name("app") == "other"

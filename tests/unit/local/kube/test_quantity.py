from decimal import Decimal

import pytest
from foundry_local.kube.quantity import parse_quantity
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("500m", Decimal("0.5")), ("64Gi", 64 * 2**30), ("1k", 1000), ("1.5", Decimal("1.5")),
        ("1e3", 1000), ("2E", 2 * 10**18), (4, 4), ("100Ki", 102400), ("-1", -1),
    ],
)  # fmt: skip
def test_parse(text: str, value: Decimal) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "abc", "1.2.3", "12Qi", "NaN", "inf"])
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        parse_quantity(text)


@given(st.integers(0, 10**9))
def test_suffixes_agree(number: int) -> None:
    assert parse_quantity(f"{number}Ki") == parse_quantity(number) * 1024
    assert parse_quantity(f"{number}m") * 1000 == number

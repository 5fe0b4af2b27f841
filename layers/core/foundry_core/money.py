"""Money is an integer number of nano-USD (10^-9 USD): no float ever holds a balance."""

from decimal import ROUND_HALF_EVEN, Decimal, DecimalException

NANOS_PER_USD = 1_000_000_000


def from_usd(amount: str | Decimal | int) -> int:
    """Nano-USD of a decimal amount; ``ValueError`` for anything that is not a finite number."""
    try:
        nanos = (Decimal(amount) * NANOS_PER_USD).to_integral_value(ROUND_HALF_EVEN)
    except DecimalException as error:
        raise ValueError(f"not an amount of money: {amount!r}") from error
    if not nanos.is_finite():
        raise ValueError(f"not an amount of money: {amount!r}")
    return int(nanos)


def to_usd(nanos: int) -> Decimal:
    return Decimal(nanos) / NANOS_PER_USD


def format_usd(nanos: int, places: int = 2) -> str:
    """``$1,234.50``; rounds half to even at ``places``."""
    sign = "-" if nanos < 0 else ""
    return f"{sign}${abs(to_usd(nanos)):,.{places}f}"


def ratio(nanos: int, numerator: int, denominator: int) -> int:
    """``nanos × numerator / denominator`` rounded half to even, exact in between."""
    quotient, remainder = divmod(nanos * numerator, denominator)
    doubled = 2 * remainder
    return quotient + (doubled > denominator or (doubled == denominator and quotient % 2 == 1))

"""Kubernetes resource quantities ("500m", "64Gi", "8")."""

from decimal import Decimal, InvalidOperation

_SUFFIXES: dict[str, Decimal] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip


def parse_quantity(value: str | int | float) -> Decimal:
    """The plain number (cores, bytes, devices) that a quantity stands for.

    Raises:
        ValueError: the text is no quantity.
    """
    text = str(value).strip()
    for size in (2, 1, 0):
        suffix = text[len(text) - size :] if size else ""
        if suffix in _SUFFIXES and len(text) > size:
            try:
                number = Decimal(text[: len(text) - size] if size else text)
            except InvalidOperation:
                continue
            if number.is_finite():
                return number * _SUFFIXES[suffix]
    raise ValueError(
        f"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', got {text!r}"
    )

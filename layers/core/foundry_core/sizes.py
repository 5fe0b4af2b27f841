"""What a table item can hold of a client's JSON: finite numbers, valid text, less than DynamoDB's 400 KB."""

import json
from typing import Any

from foundry_core.errors import Invalid, TooLarge


def check_storable(value: Any, *, what: str, max_bytes: int) -> None:
    """Raise ``Invalid`` (``<what>_invalid``) for values that are not JSON, ``TooLarge`` (``<what>_too_large``)."""
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as error:
        detail = f"The {what} holds a value that is not JSON (NaN, infinity or broken text)."
        raise Invalid(detail, code=f"{what}_invalid") from error
    if size > max_bytes:
        raise TooLarge(f"The {what} is {size:,} bytes; at most {max_bytes:,} are kept.", code=f"{what}_too_large")

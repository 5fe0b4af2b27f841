"""Engine versions as dates: a release a year later is faster, whatever its number is called."""

import re
from datetime import date
from functools import lru_cache
from itertools import pairwise

# (version, release date) from the projects' release pages; versions between two entries are interpolated.
_RELEASES: dict[str, tuple[tuple[str, str], ...]] = {
    "vllm": (
        ("0.4.3", "2024-06-01"),
        ("0.5.2", "2024-07-15"),
        ("0.6.0", "2024-09-04"),
        ("0.6.6", "2024-12-27"),
        ("0.7.3", "2025-02-20"),
        ("0.8.0", "2025-03-18"),
        ("0.8.5", "2025-04-28"),
        ("0.9.0", "2025-05-28"),
        ("0.10.0", "2025-07-24"),
        ("0.11.0", "2025-10-02"),
        ("0.12.0", "2025-12-03"),
        ("0.13.0", "2025-12-18"),
        ("0.14.0", "2026-01-20"),
        ("0.15.1", "2026-02-05"),
        ("0.17.0", "2026-03-07"),
        ("0.18.0", "2026-03-20"),
        ("0.19.0", "2026-04-02"),
        ("0.24.0", "2026-07-10"),
    ),
    "sglang": (
        ("0.4.0", "2024-12-04"),
        ("0.4.6", "2025-04-28"),
        ("0.5.1", "2025-08-23"),
        ("0.5.3", "2025-10-06"),
        ("0.5.5", "2025-11-06"),
        ("0.5.6", "2025-12-03"),
        ("0.5.7", "2026-01-01"),
        ("0.5.8", "2026-01-23"),
        ("0.5.9", "2026-02-24"),
        ("0.5.14", "2026-07-01"),
    ),
    "trtllm": (
        ("0.5.0", "2023-10-19"),
        ("0.7.1", "2024-01-05"),
        ("0.8.0", "2024-02-29"),
        ("0.9.0", "2024-04-16"),
        ("0.12.0", "2024-08-29"),
        ("0.14.0", "2024-11-04"),
        ("0.17.0", "2025-02-07"),
        ("0.19.0", "2025-05-09"),
        ("0.20.0", "2025-06-14"),
        ("0.21.0", "2025-07-04"),
        ("1.0.0", "2025-09-24"),
        ("1.1.0", "2025-12-12"),
        ("1.2.0", "2026-02-01"),
        ("1.3.0", "2026-04-01"),
    ),
}
_EPOCH = date(2024, 1, 1)
# What else an image's name tells a version of: rocm/vllm:rocm6.4.1_vllm_0.9.1.
_OTHERS = re.compile(r"(rocm|cuda|pytorch|torch|ubuntu|python|py)[-_ ]?v?\d+(\.\d+)*", re.IGNORECASE)


def days(text: str | None) -> float | None:
    """ISO date (or year-month) → days since 2024-01-01; None when it cannot be read."""
    match = re.match(r"(\d{4})-(\d{2})(?:-(\d{2}))?", str(text or ""))
    if not match:
        return None
    try:
        return float((date(int(match[1]), int(match[2]), int(match[3] or 15)) - _EPOCH).days)
    except ValueError:
        return None


def software_days(engine: str, version: str | None, measured: str | None) -> float | None:
    """Age of the software in days since 2024-01-01: by release where the version is known, else the given date."""
    released = _released(engine, str(version or ""))
    return released if released is not None else days(measured)


def _number(version: str) -> float | None:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", _OTHERS.sub(" ", version))
    if not match:
        return None
    return int(match[1]) * 1e4 + int(match[2]) * 1e2 + min(int(match[3] or 0), 99)


@lru_cache(maxsize=4096)
def _released(engine: str, version: str) -> float | None:
    number, known = _number(version), _RELEASES.get(engine)
    if number is None or not known or "nightly" in version:
        return None
    points = [(_number(v) or 0.0, days(d) or 0.0) for v, d in known]
    if number <= points[0][0]:
        return points[0][1]
    for (low, start), (high, end) in pairwise(points):
        if number <= high:
            return start + (end - start) * (number - low) / (high - low)
    return points[-1][1]

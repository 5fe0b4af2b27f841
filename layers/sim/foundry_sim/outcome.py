"""The simulator's answer in columns: mean, percentiles and bounds of every latency, and throughput."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundry_sim.physics.steady import OFFLINE, STATIC, Steady, Traffic
from foundry_sim.physics.terms import Array


@dataclass(frozen=True, slots=True)
class Correction:
    """Factors on the closed form, half-widths of the 90 % interval in log space, and whether the row is inside the
    measured domain. Without a regressor the factors are one."""

    ttft: Array
    tpot: Array
    rate: Array
    ttft_width: Array
    tpot_width: Array
    rate_width: Array
    in_domain: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Spreads:
    """Milliseconds; `lo`–`hi` bound the mean with 90 % probability."""

    mean: Array
    p50: Array
    p95: Array
    p99: Array
    lo: Array
    hi: Array


@dataclass(frozen=True, slots=True)
class Outcome:
    ttft_ms: Spreads
    tpot_ms: Spreads
    e2e_ms: Spreads
    output_tokens_per_s: Array
    output_tokens_per_s_lo: Array
    output_tokens_per_s_hi: Array
    in_domain: NDArray[np.bool_]


def outcome(x: Traffic, s: Steady, c: Correction) -> Outcome:
    ttft, tpot = s.ttft_s * c.ttft * 1e3, s.tpot_s * c.tpot * 1e3
    tail = np.maximum(x.osl - 1.0, 0.0)
    e2e = ttft + tail * tpot
    first = _ttft_spreads(x, s, c, ttft)
    token = _tpot_spreads(x, s, c, tpot)
    # The slowest request is rarely slowest in both parts: quantiles of a sum lie below the sum of quantiles.
    whole = Spreads(
        e2e,
        first.p50 + tail * token.p50,
        e2e + np.hypot(first.p95 - ttft, tail * (token.p95 - tpot)),
        e2e + np.hypot(first.p99 - ttft, tail * (token.p99 - tpot)),
        e2e - np.hypot(ttft - first.lo, tail * (tpot - token.lo)),
        e2e + np.hypot(first.hi - ttft, tail * (token.hi - tpot)),
    )
    rate = _rate(x, s, c, e2e)
    low, high = rate * np.exp(-c.rate_width), rate * np.exp(c.rate_width)
    return Outcome(first, token, whole, rate, low, high, c.in_domain)


def _rate(x: Traffic, s: Steady, c: Correction, e2e_ms: Array) -> Array:
    """Output tokens/s: Little's law over the corrected latencies; offline has its own correction."""
    closed = np.where(x.kind == STATIC, s.batch, np.maximum(x.load, s.batch)) / (e2e_ms / 1e3)
    running = np.where(x.kind == OFFLINE, s.requests_per_s * c.rate, closed)
    return np.asarray(np.where(x.kind == 1.0, s.requests_per_s, running) * x.osl)


def _ttft_spreads(x: Traffic, s: Steady, c: Correction, mean: Array) -> Spreads:
    """Most requests meet a running engine; a few waited through the start burst, which makes the mean and the tail."""
    calm = s.prefill_alone_s + s.queue_s
    skew = np.clip(calm / np.maximum(s.ttft_s - s.wait_s, 1e-9), 0.3, 1.0)
    p50 = mean * np.where(s.wait_s > 0.5 * s.ttft_s, 1.0, skew)
    peak = np.maximum(mean * 2.0, mean + 2e3 * s.burst_s * c.ttft)
    p95 = np.maximum(mean * 1.3, p50 + 0.5 * (peak - p50))
    return Spreads(mean, p50, p95, np.maximum(peak, p95), mean * np.exp(-c.ttft_width), mean * np.exp(c.ttft_width))


def _tpot_spreads(x: Traffic, s: Steady, c: Correction, mean: Array) -> Spreads:
    """Requests differ by how many prefills fell into their life, so the spread grows with the prefills' share."""
    spread = 0.02 + 0.5 * s.prefill_share / np.sqrt(np.maximum(np.minimum(s.batch, x.osl / 32), 1.0))
    p50 = mean * (1.0 - 0.1 * spread)
    width = c.tpot_width
    return Spreads(
        mean, p50, mean * (1 + 1.645 * spread), mean * (1 + 2.8 * spread), mean * np.exp(-width), mean * np.exp(width)
    )

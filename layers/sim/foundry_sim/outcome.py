"""The simulator's answer in columns: mean, percentiles and bounds of every latency, and throughput."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundry_sim.physics.steady import OFFLINE, STATIC, Steady, Traffic
from foundry_sim.physics.terms import Array

# A burst that drains evenly has its 95th percentile here between median and 99th; an exponential tail at 0.65.
_P95_OF_P99 = 0.6
# Answers differ in length at least as benchmarks draw them: uniformly between 0.89 and 1.11 of their mean.
_LENGTH_P95, _LENGTH_P99 = 0.10, 0.11


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
    ttft_median: Array | float = 0.0  # log corrections of the closed form's median / mean and p99 / mean
    ttft_last: Array | float = 0.0


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
    tail = np.maximum(x.osl - 1.0, 0.0)
    ttft = (s.ttft_s * c.ttft + s.backlog_s) * 1e3
    tpot = (s.tpot_s * c.tpot + s.stall_s / np.maximum(tail, 1.0)) * 1e3
    e2e = ttft + tail * tpot
    median, last = ttft_shape(s)
    first = first_token(ttft, median + c.ttft_median, last + c.ttft_last, c.ttft_width)
    token = each_token(tpot, _prefills(x, s), c.tpot_width)
    whole = whole_request(first, token, tail)
    rate = _rate(x, s, c, e2e)
    low, high = rate * np.exp(-c.rate_width), rate * np.exp(c.rate_width)
    return Outcome(first, token, whole, rate, low, high, c.in_domain)


def whole_request(first: Spreads, token: Spreads, tail: Array) -> Spreads:
    """First token plus `tail` more. The slowest request is rarely slowest in both parts: quantiles of a sum lie below
    the sum of quantiles."""
    ttft, tpot = first.mean, token.mean
    e2e = ttft + tail * tpot
    return Spreads(
        e2e,
        first.p50 + tail * token.p50,
        e2e + np.hypot(first.p95 - ttft, tail * np.hypot(token.p95 - tpot, _LENGTH_P95 * tpot)),
        e2e + np.hypot(first.p99 - ttft, tail * np.hypot(token.p99 - tpot, _LENGTH_P99 * tpot)),
        e2e - np.hypot(ttft - first.lo, tail * (tpot - token.lo)),
        e2e + np.hypot(first.hi - ttft, tail * (token.hi - tpot)),
    )


def _rate(x: Traffic, s: Steady, c: Correction, e2e_ms: Array) -> Array:
    """Output tokens/s: Little's law over the corrected latencies; offline has its own correction."""
    closed = np.where(x.kind == STATIC, s.batch, np.maximum(x.load, s.batch)) / (e2e_ms / 1e3)
    running = np.where(x.kind == OFFLINE, s.requests_per_s * c.rate, closed)
    return np.asarray(np.where(x.kind == 1.0, s.requests_per_s, running) * x.osl)


def ttft_shape(s: Steady) -> tuple[Array, Array]:
    """(log median / mean, log p99 / mean) of the closed form: most requests meet a running engine; a few waited through
    the start burst, which makes the mean and the tail."""
    calm = np.clip((s.prefill_alone_s + s.queue_s) / np.maximum(s.ttft_s - s.wait_s, 1e-9), 0.3, 1.0)
    return shape_of(np.where(s.wait_s > 0.5 * s.ttft_s, 1.0, calm))


def shape_of(median: Array) -> tuple[Array, Array]:
    """The same of a median / mean: the rest waited about five times as long as the mean."""
    return np.asarray(np.log(median)), np.asarray(np.log(median + 5.0 * (1.0 - median) + 0.3))


def first_token(mean: Array, median: Array, last: Array, width: Array | float) -> Spreads:
    """From the mean (ms) and the logs of median / mean, p99 / mean and of the interval's half-width."""
    p50 = mean * np.exp(np.minimum(median, 0.0))
    p99 = np.maximum(mean * np.exp(last), 1.05 * mean)
    p95 = p50 + _P95_OF_P99 * (p99 - p50)
    return Spreads(mean, p50, p95, p99, mean * np.exp(-width), mean * np.exp(width))


def each_token(mean: Array, prefills: Array | float, width: Array | float) -> Spreads:
    """Requests differ by how many prefills fell into their life, so the spread grows with these."""
    spread = 0.02 + 0.5 * prefills
    p50 = mean * (1.0 - 0.1 * spread)
    return Spreads(
        mean, p50, mean * (1 + 1.645 * spread), mean * (1 + 2.8 * spread), mean * np.exp(-width), mean * np.exp(width)
    )


def _prefills(x: Traffic, s: Steady) -> Array:
    """Their share of a request's time, by how many of them there were."""
    return np.asarray(s.prefill_share / np.sqrt(np.maximum(np.minimum(s.batch, x.osl / 32), 1.0)))

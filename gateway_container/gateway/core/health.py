"""Circuit breaker and outlier ejection of deployments."""

from collections.abc import Sequence
from typing import Final

from gateway.core.snapshot import Deployment

FAILURES_TO_OPEN: Final = 3
MAX_OPEN_S: Final = 30.0
RATE_WEIGHT: Final = 0.1
EJECT_RATE: Final = 0.5
EJECT_S: Final = 10.0


def usable(deployment: Deployment, now_s: float) -> bool:
    """Whether the breaker lets requests through; when its time is over the next request is the probe."""
    return deployment.open_until_s <= now_s and deployment.ejected_until_s <= now_s and not deployment.asleep


def note_failure(deployment: Deployment, now_s: float) -> None:
    """Open the breaker after three failures in a row, for 1, 2, 4 … 30 s.

    Failures of requests that were sent before it opened say nothing new: a burst of them is one event.
    """
    if deployment.open_until_s > now_s:
        return
    deployment.failures += 1
    deployment.failure_rate += RATE_WEIGHT * (1.0 - deployment.failure_rate)
    beyond = deployment.failures - FAILURES_TO_OPEN
    if beyond >= 0:
        deployment.open_until_s = now_s + min(2.0 ** min(beyond, 10), MAX_OPEN_S)


def note_success(deployment: Deployment, latency_s: float) -> None:
    """Close the breaker; ``latency_s`` is the time to the first byte."""
    deployment.failures = 0
    deployment.failure_rate -= RATE_WEIGHT * deployment.failure_rate
    before = deployment.latency_s
    deployment.latency_s = latency_s if before == 0.0 else before + RATE_WEIGHT * (latency_s - before)


def eject_outliers(tier: Sequence[Deployment], now_s: float) -> list[Deployment]:
    """Take out those that fail every second request while their peers do not; never more than half of a tier."""
    bad = [d for d in tier if d.failure_rate >= EJECT_RATE and d.ejected_until_s <= now_s]
    out = sum(d.ejected_until_s > now_s for d in tier)
    ejected = sorted(bad, key=lambda d: -d.failure_rate)[: max(len(tier) // 2 - out, 0)]
    for deployment in ejected:
        deployment.ejected_until_s = now_s + EJECT_S
        deployment.failure_rate = EJECT_RATE / 2
    return ejected

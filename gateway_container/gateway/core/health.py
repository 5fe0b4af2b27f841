"""Which deployments are left alone for a while: those that give no answer, and those that fail more than their peers.

A failure may be the request's fault. So the verdict waits for the end of the attempts: failures count where another
deployment served the same request, or where no other was asked; where none did, it was the request. An answer that is
broken off is the deployment's fault.
"""

from collections.abc import Sequence
from typing import Final

from gateway.core.exchange import Exchange
from gateway.core.snapshot import Deployment

SILENCES_TO_OPEN: Final = 3
MAX_OPEN_S: Final = 30.0
LATENCY_WEIGHT: Final = 0.1
KEPT_EACH_SECOND: Final = 0.9  # of the counts: they tell of about the last ten seconds
LEAST_REQUESTS: Final = 10.0
EJECT_RATE: Final = 0.5
EJECT_S: Final = 10.0
PROBE_S: Final = 10.0  # so long the others wait for what becomes of a probe


def usable(deployment: Deployment, now_s: float) -> bool:
    """Whether requests may go there; when its time is over the next request is the probe."""
    return deployment.open_until_s <= now_s and deployment.ejected_until_s <= now_s and not deployment.asleep


def begin_probe(deployment: Deployment, now_s: float) -> None:
    """The request that was just given to a deployment whose time is over is its probe: no other one follows yet."""
    if 0.0 < deployment.open_until_s <= now_s:
        deployment.open_until_s = now_s + PROBE_S
        deployment.probing = True
    if 0.0 < deployment.ejected_until_s <= now_s:
        deployment.ejected_until_s = now_s + PROBE_S
        deployment.probing = True


def note_success(deployment: Deployment, latency_s: float) -> None:
    """``latency_s`` is the time to the first byte. The success of a probe lets all requests through again."""
    deployment.silences = 0
    deployment.requests += 1.0
    before = deployment.latency_s
    deployment.latency_s = latency_s if before == 0.0 else before + LATENCY_WEIGHT * (latency_s - before)
    if deployment.probing:
        deployment.probing = False
        deployment.open_until_s = deployment.ejected_until_s = 0.0


def blame(exchange: Exchange, now_s: float) -> None:
    """Another deployment served the request: those that failed before failed by themselves."""
    for deployment, silent in exchange.failed:
        if silent:
            note_silence(deployment, now_s)
        note_failure(deployment)
    exchange.failed = ()


def judge_unanswered(exchange: Exchange) -> None:
    """No deployment served the request. One failure alone counts as one of many; nothing is known where several failed,
    or where the client left before the next one said anything."""
    if len(exchange.failed) == 1 and exchange.failed[0][0] is exchange.deployment:
        note_failure(exchange.failed[0][0])


def note_failure(deployment: Deployment) -> None:
    deployment.requests += 1.0
    deployment.failures += 1.0
    deployment.probing = False  # the others wait until its time is over once more


def note_cut(deployment: Deployment, begun: bool) -> None:
    """It broke off its answer, which counted as a success where its body had ``begun``."""
    if begun:
        deployment.failures += 1.0
    else:
        note_failure(deployment)


def note_silence(deployment: Deployment, now_s: float) -> None:
    """Open the breaker after three requests in a row without an answer, for 1, 2, 4 … 30 s.

    Requests that were sent before it opened say nothing new: a burst of them is one event.
    """
    if deployment.open_until_s > now_s and not deployment.probing:
        return
    deployment.silences += 1
    beyond = deployment.silences - SILENCES_TO_OPEN
    if beyond >= 0:
        deployment.open_until_s = now_s + min(2.0 ** min(beyond, 10), MAX_OPEN_S)


def failure_rate(deployment: Deployment) -> float:
    """The share of failures among the requests of about the last ten seconds, 0 to 1."""
    return deployment.failures / deployment.requests if deployment.requests else 0.0


def fade(deployment: Deployment) -> None:
    """To be called once a second."""
    deployment.requests *= KEPT_EACH_SECOND
    deployment.failures *= KEPT_EACH_SECOND


def eject_outliers(tier: Sequence[Deployment], now_s: float) -> list[Deployment]:
    """Take out those that fail every second of ten requests or more, for 10 s and then until a probe succeeds.

    At most half of a tier is out at a time, so never its last one.
    """
    there = [d for d in tier if usable(d, now_s)]
    bad = [d for d in there if d.requests >= LEAST_REQUESTS and failure_rate(d) >= EJECT_RATE]
    out = len(tier) - len(there)
    ejected = sorted(bad, key=failure_rate, reverse=True)[: max(len(tier) // 2 - out, 0)]
    for deployment in ejected:
        deployment.ejected_until_s = now_s + EJECT_S
        deployment.probing = False
        deployment.requests = deployment.failures = 0.0
    return ejected

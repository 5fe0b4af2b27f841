"""What an endpoint may have beyond passing requests on: the stages that its policy asks for, and what they share."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from gateway.capture import Captures
from gateway.core.cache import ResponseCache
from gateway.core.cache_stage import CacheStage
from gateway.core.exchange import Exchange
from gateway.core.problems import closed
from gateway.core.snapshot import Endpoint
from gateway.core.stage import Stage, StageMaker
from gateway.core.wire import Direction, Guardrail
from gateway.credentials import NoCredential
from gateway.shadow import Shadows, ShadowStage

if TYPE_CHECKING:
    from gateway.core.guard.guard import Verdict
    from gateway.core.guard.rules import Finding
    from gateway.runtime import Gateway
    from gateway.scanners import Scanners

log = logging.getLogger("gateway.extras")


class Extras:
    """Registers the kinds of stages with the policy core, in the order in which requests pass them."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._scanners: Scanners | None = None
        # (endpoint, guardrail, action, direction) → times
        self.findings: Counter[tuple[str, str, str, str]] = Counter()
        self.cache = ResponseCache(gateway.settings.cache_bytes)
        self.shadows = Shadows(gateway, gateway.settings.shadow_copies)
        directory, boot = gateway.directory / "captures", gateway.boot.rstrip("-")
        self.captures = Captures(directory, boot, gateway.control.upload_captured)
        gateway.policy.stage_kinds += [self.captures.kind, self._cached, self._guardrails, self._shadowed]

    def start(self) -> None:
        self.captures.start()

    async def close(self) -> None:
        await self.shadows.close()
        await self.captures.close()
        if self._scanners is not None:
            await self._scanners.close()

    # --- cache --------------------------------------------------------------------------------------------------

    def _cached(self, endpoint: Endpoint) -> StageMaker | None:
        ttl_s = endpoint.policy.cache_ttl_s
        if ttl_s <= 0:
            return None
        cache, fingerprint = self.cache, _fingerprint(endpoint)

        def make(exchange: Exchange) -> Stage:
            assert exchange.key is not None
            scope = fingerprint + msgspec.json.encode(exchange.key.project_id)
            return CacheStage(exchange, cache, scope, ttl_s, time.monotonic)

        return make

    # --- shadows ------------------------------------------------------------------------------------------------

    def _shadowed(self, endpoint: Endpoint) -> StageMaker | None:
        shadows, deployments = self.shadows, endpoint.shadows

        def make(exchange: Exchange) -> Stage:
            return ShadowStage(exchange, shadows, deployments)

        return make if deployments else None

    # --- guardrails ---------------------------------------------------------------------------------------------

    def _guardrails(self, endpoint: Endpoint) -> StageMaker | None:
        guard = endpoint.guard
        if endpoint.problem:
            log.error("endpoint %s answers nothing: %s", endpoint.name, endpoint.problem)
            return partial(_Closed, reason=endpoint.problem)
        if guard is None:
            return None
        from gateway.core.guard.stage import GuardStage

        def make(exchange: Exchange) -> Stage:
            return GuardStage(exchange, guard, self._scan, self._found)

        return make

    def _found(self, endpoint: str, finding: "Finding", direction: Direction) -> None:
        self.findings[endpoint, finding.rule_id, finding.action, direction] += 1

    async def _scan(self, guardrail: Guardrail, direction: Direction, texts: Sequence[str]) -> "Verdict":
        """Raises ScannerAway."""
        from gateway.core.guard.guard import ScannerAway
        from gateway.scanners import Scanners

        if self._scanners is None:
            self._scanners = Scanners(self._gateway.secret)
        try:
            return await self._scanners.scan(guardrail, direction, texts)
        except NoCredential as error:
            log.error("guardrail %s: %s", guardrail.id, error)
            raise ScannerAway(str(error)) from None
        except ScannerAway as error:
            log.warning("guardrail %s: its scanner is away: %s", guardrail.id, error)
            raise


class _Closed(Stage):
    """Of an endpoint that cannot be used as it is configured."""

    def __init__(self, exchange: Exchange, reason: str) -> None:
        super().__init__(exchange)
        self._reason = reason

    async def request(self) -> bool:
        raise closed(self._reason)


def _fingerprint(endpoint: Endpoint) -> bytes:
    """Changes with what changes an endpoint's answers: who answers and what is done to answers, not where or how."""
    models = sorted({(d.provider, d.model) for tier in endpoint.tiers for d in tier})
    return sha256(
        msgspec.json.encode([endpoint.name, models, sorted(endpoint.adapters.items()), endpoint.policy.guardrails])
    ).digest()

"""What an endpoint may have beyond passing requests on: the stages that its policy asks for, and what they share."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.core.exchange import Exchange
from gateway.core.snapshot import Endpoint
from gateway.core.stage import Stage, StageMaker
from gateway.core.wire import Direction, Guardrail
from gateway.credentials import NoCredential

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
        gateway.policy.stage_kinds.append(self._guardrails)

    async def close(self) -> None:
        if self._scanners is not None:
            await self._scanners.close()

    # --- guardrails ---------------------------------------------------------------------------------------------

    def _guardrails(self, endpoint: Endpoint) -> StageMaker | None:
        guard = endpoint.guard
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

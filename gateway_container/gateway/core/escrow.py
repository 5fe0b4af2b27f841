"""The control plane's side of the lease contract, in memory: the rules of docs/gateway.md as executable code.

Used by the stand-in control plane and by the property tests; the real one keeps the same numbers in DynamoDB.
"""

from collections.abc import Iterable

from gateway.core import wire

MONEY_LIFE_MS = 60_000
QUARANTINE_MS = 24 * 3_600_000  # so long after its expiry a gateway may come back and say what it spent
WINDOW_MS = 60_000


class _Record:
    __slots__ = ("closed", "granted", "held", "seq", "spent", "until_ms")

    def __init__(self) -> None:
        self.granted = 0
        self.spent = 0
        self.held = 0
        self.seq = 0
        self.until_ms = 0
        self.closed = False


class Escrow:
    """``limits`` maps (scope, kind) to the limit, passed by ``committed`` only through what is spent or held."""

    def __init__(self, limits: dict[tuple[str, str], int]) -> None:
        self.limits = limits
        self.committed: dict[tuple[str, str, int | None], int] = {}
        self.writes = 0
        self._records: dict[tuple[str, str], dict[str, _Record]] = {}

    def handle(self, requests: Iterable[wire.LeaseRequest], now_ms: int) -> wire.LeaseReply:
        return wire.LeaseReply([self._one(request, now_ms) for request in requests])

    def _one(self, request: wire.LeaseRequest, now_ms: int) -> wire.Lease:
        self.writes += 1
        records = self._records.setdefault((request.scope, request.kind), {})
        if request.kind == "money_nanos":
            self._cut((request.scope, request.kind, None), records, now_ms)
        known = records.get(request.lease_id)
        if request.close:
            return self._close(request, known, now_ms)
        if known is None:
            known = records[request.lease_id] = _Record()
        retry_after_ms = None
        if request.seq > known.seq and not known.closed:
            retry_after_ms = self._change(request, known)
            known.until_ms = self._expiry(request, now_ms)
        return wire.Lease(
            request.scope, request.kind, request.lease_id, known.granted, self._expiry(request, now_ms), retry_after_ms
        )

    def _cut(self, name: tuple[str, str, int | None], records: dict[str, _Record], now_ms: int) -> None:
        """Leases out of quarantine go down to what was last told about them."""
        for record in records.values():
            if not record.closed and record.until_ms + QUARANTINE_MS < now_ms:
                told = record.spent + record.held
                self.committed[name] = self.committed.get(name, 0) + told - record.granted
                record.granted = told

    def _change(self, request: wire.LeaseRequest, known: _Record) -> int | None:
        known.seq, known.spent, known.held = request.seq, request.spent, request.held
        name = (request.scope, request.kind, request.window_ms)
        committed = self.committed.get(name, 0)
        used = request.spent + request.held
        limit = self.limits.get((request.scope, request.kind))
        more = request.ceiling - known.granted
        if limit is not None and more > 0:
            more = share(limit - committed, more, used + request.needed - known.granted)
        granted = max(used, known.granted + more)
        self.committed[name] = committed + granted - known.granted
        known.granted = granted
        return 250 if granted < request.ceiling and granted - used < request.needed else None

    def _close(self, request: wire.LeaseRequest, known: _Record | None, now_ms: int) -> wire.Lease:
        if known is not None and not known.closed:
            name = (request.scope, request.kind, request.window_ms)
            self.committed[name] = self.committed.get(name, 0) + request.spent - known.granted
            known.granted, known.spent, known.held, known.closed = request.spent, request.spent, 0, True
        return wire.Lease(request.scope, request.kind, request.lease_id, request.spent, now_ms)

    def _expiry(self, request: wire.LeaseRequest, now_ms: int) -> int:
        return now_ms + MONEY_LIFE_MS if request.window_ms is None else request.window_ms + WINDOW_MS


def share(left: int, wanted: int, needed: int) -> int:
    """How much of what is left a gateway gets: at most half near the end, so that others find some too.

    Less than ``needed`` is of no use to it and is not given at all.
    """
    given = min(wanted, max(left // 2, needed))
    return given if 0 < given <= left else 0

"""A lease, and the limit that it is a slice of."""

from typing import Final

WINDOW_MS: Final = 60_000
MOST: Final = 10**18  # an amount as the control plane takes it; a journal's mark holds a little more
SLICE_S: Final = 2.0  # a slice is about this much of a gateway's own recent demand
PER_MINUTE: Final = ("requests", "tokens")
INDEX: Final = {"requests": 0, "tokens": 1, "money_nanos": 2, "wake": 0}  # of a kind in Amounts


class Lease:
    """A cumulative ceiling: ``granted`` = ``spent`` + ``held`` + ``free``. ``mark`` is told what is spent and held."""

    __slots__ = ("expires_ms", "free", "granted", "id", "mark", "seq", "spent", "told", "window_ms")

    def __init__(self, id: str, window_ms: int | None) -> None:
        self.id = id
        self.window_ms = window_ms
        self.granted = 0
        self.free = 0
        self.spent = 0
        self.expires_ms = 0  # 0: not answered yet
        self.seq = 0  # of the last message about it
        self.told = 0  # spent, as the control plane is known to know
        self.mark: memoryview | None = None

    @property
    def used(self) -> int:
        return self.granted - self.free

    @property
    def held(self) -> int:
        return self.granted - self.free - self.spent

    def grant(self, ceiling: int) -> None:
        self.free += ceiling - self.granted
        self.granted = ceiling

    def settle(self, amount: int, used: int) -> None:
        """Release a hold of ``amount`` of which ``used`` was really spent."""
        if used > MOST - self.spent:
            used = MOST - self.spent
        self.free += amount - used
        self.spent += used
        if self.mark is not None:
            self.mark[0] = self.granted - self.free


NO_LEASE: Final = Lease("", None)
NO_LEASE.free = -1


class Scope:
    """A limit of one kind on one key, project or endpoint, as this gateway sees it."""

    __slots__ = ("asked", "demand", "idle_since_ms", "index", "kind", "largest", "lease", "limit", "low", "name",
                 "next_lease", "refused", "retry_at_ms", "seen", "sent_ms", "told")  # fmt: skip

    def __init__(self, name: str, kind: str, limit: int) -> None:
        self.name = name
        self.kind = kind
        self.limit = limit
        self.index = INDEX[kind]
        self.lease = NO_LEASE
        self.next_lease: Lease | None = None
        self.retry_at_ms = 0  # the control plane had nothing to give; ask no earlier
        self.refused = False  # the control plane did not take the last message about it
        self.asked = False  # a message about it is on its way
        self.demand = 0.0  # amount per second, of late
        self.largest = 0  # largest amount that ran it low
        self.low = 0  # with less than this free, a refill is asked for
        self.sent_ms = 0  # the last message
        self.told = 0  # what was used of the lease then
        self.seen = 0  # what was used at the last sweep
        self.idle_since_ms = 0

    @property
    def target(self) -> int:
        """How much should be free after a refill."""
        return min(max(4 * self.largest, int(self.demand * SLICE_S), 1), max(self.limit, 1))

    def measure(self, now_ms: int) -> None:
        """Take the demand since the last message. Up at once, down slowly: too small a slice makes requests wait."""
        elapsed_s = max(now_ms - self.sent_ms, 50) / 1000 if self.sent_ms else 1.0
        taken = max(self.lease.used - self.told, 0)
        self.demand = max(taken / elapsed_s, self.demand * 0.5 ** (elapsed_s / SLICE_S))
        self.told = self.lease.used
        self.sent_ms = now_ms
        self.low = self.target // 2

    def use(self, lease: Lease) -> None:
        """Go on with another lease."""
        self.lease = lease
        self.told = self.seen = lease.used

    def idle(self, now_ms: int, idle_ms: int) -> bool:
        """Whether nothing was held or spent for so long. To be asked in each sweep."""
        lease = self.lease
        if lease.used != self.seen or lease.held:
            self.seen, self.idle_since_ms = lease.used, now_ms
        return now_ms - self.idle_since_ms >= idle_ms


Plan = tuple[Scope, ...]  # every limit that applies to a request
Amounts = tuple[int, int, int]  # requests, tokens, money_nanos


def part(amounts: Amounts, index: int) -> int:
    """One of the amounts. Spelt out: an index that is only known at run time would pack the tuple into an object."""
    if index == 0:
        return amounts[0]
    return amounts[1] if index == 1 else amounts[2]

"""One request on its way: what is known of it so far."""

import re
from typing import Final

from gateway.core.call import Call
from gateway.core.lease import Amounts, Lease, Plan
from gateway.core.multipart import Form
from gateway.core.snapshot import Deployment, Endpoint, Key
from gateway.core.trace import Trace

SOUND_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
NOWHERE: Final = ("", "")
NO_HEADERS: Final[dict[bytes, bytes]] = {}


class Exchange:
    """The policy core's view of a request. Slots: with so many attributes a dictionary per request is slow."""

    __slots__ = (
        "amounts", "answered_by", "arrived_s", "body", "call", "deployment", "endpoint", "event_id", "failed",
        "first_s", "form", "given", "headers", "key", "leases", "more_bytes", "origin", "path", "plan", "request_id",
        "retries", "routed_s", "trace", "tried", "ts_ms",
    )  # fmt: skip

    def __init__(self, event_id: str, path: str, arrived_s: float, ts_ms: int) -> None:
        self.event_id: str = event_id
        self.request_id: str = event_id
        self.path = path
        self.arrived_s = arrived_s
        self.ts_ms = ts_ms
        self.origin = NOWHERE  # the client's address and user agent, where they may be asked for again
        self.key: Key | None = None
        self.call: Call | None = None
        self.body = b""
        self.more_bytes = 0  # of the body that are still to come, at most
        self.form: Form | None = None
        self.headers = NO_HEADERS  # those that stages look at, names in lower case
        self.endpoint: Endpoint | None = None
        self.answered_by: Endpoint | None = None  # a fallback of the endpoint, or itself
        self.deployment: Deployment | None = None
        self.plan: Plan = ()
        self.leases: list[Lease] = []  # that hold ``amounts``, one per scope of the plan
        self.amounts: Amounts = (0, 0, 0)
        self.given = 0  # prompt tokens among the amounts
        self.trace: Trace | None = None  # where it is sampled
        self.tried: tuple[Deployment, ...] = ()
        self.failed: tuple[tuple[Deployment, bool], ...] = ()  # not judged yet; True: it gave no answer
        self.retries = 0
        self.routed_s = 0.0
        self.first_s = 0.0

    def budgeted(self) -> bool:
        """Whether money is held for it."""
        return bool(self.leases) and any([scope.kind == "money_nanos" for scope in self.plan])

    def name_by(self, client_request_id: bytes) -> None:
        """Go by the client's own request id, if it is a sound one."""
        if SOUND_REQUEST_ID.fullmatch(client_request_id):
            self.request_id = client_request_id.decode("ascii")

    def server_timing(self, now_s: float) -> bytes:
        """The value of a Server-Timing header, in milliseconds: held here, and then until the answer began."""
        if not self.routed_s:
            return b"queue;dur=%.3f" % ((now_s - self.arrived_s) * 1000.0)
        held_ms, upstream_ms = (self.routed_s - self.arrived_s) * 1000.0, (now_s - self.routed_s) * 1000.0
        return b"queue;dur=%.3f, upstream;dur=%.3f" % (held_ms, upstream_ms)

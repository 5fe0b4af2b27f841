"""A batch that this process runs: some lines, their answers into object storage, a report, and so on to the end."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import httpx

from gateway.batch_input import Input
from gateway.batch_line import KEY_GONE, Answer, ask, backoff_s
from gateway.batch_lines import Facts, Line, read
from gateway.batch_output import Result, answered, expired
from gateway.clock import now_ms
from gateway.control import ControlPlaneAway, Refused, decode
from gateway.core import wire
from gateway.core.problems import Rejected
from gateway.core.snapshot import Key, Snapshot
from gateway.runtime import Gateway

T = TypeVar("T")
log = logging.getLogger("gateway.batches")
BEAT_S: Final = 15.0  # a claim lasts a minute
KEPT_BYTES: Final = 16 << 20  # of answers, before they are stored
MAX_PARTS: Final = 500
MIN_LINES: Final = 20  # of a part
BUSY_S: Final = 0.25
PAUSE_S: Final = 10.0  # how late a line that waits hears of a cancel
MAX_BACKOFF_S: Final = 30.0
TURN_S: Final = 300.0  # after which others that wait come first


class Lost(Exception):
    """The batch is another gateway's by now, or has ended."""


class BatchRun:
    """``run`` ends when the batch does, when it is lost, or after ``stop``."""

    def __init__(
        self, gateway: Gateway, client: httpx.AsyncClient, claim: wire.BatchClaim,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.id = claim.batch.id
        self._gateway = gateway
        self._control = gateway.control
        self._client = client
        self._claim = claim
        self._sleep = sleep
        self._input = Input(gateway.control, claim)
        counts = claim.batch.request_counts
        self._stored: dict[str, Any] = {
            "total": counts.total or None, "done_lines": claim.done_lines, "done_bytes": claim.done_bytes,
            "completed": counts.completed, "failed": counts.failed,
        }  # fmt: skip
        self._go_on, self._closed, self._stopped, self._expired = True, False, False, False
        self._slots = asyncio.Semaphore(gateway.settings.batch_lines)
        self._reporting = asyncio.Lock()
        self._lines: set[asyncio.Task[Result | None]] = set()
        self._kept_bytes = 0
        self._began_s = time.monotonic()
        self._seen: Snapshot | None = None
        self._key: Key | None = None

    @property
    def _going(self) -> bool:
        return self._go_on and not self._stopped

    def stop(self) -> None:
        """End soon: what is under way is broken off, what is done is stored."""
        self._stopped = True
        for task in self._lines:
            task.cancel()

    async def run(self) -> None:
        beat = asyncio.ensure_future(self._beat())
        try:
            if self._stored["total"] or await self._check():
                await self._answer_all()
        except Lost:
            log.info("batch %s is no longer run here", self.id)
        except ControlPlaneAway as error:
            log.warning("batch %s is left to another gateway: %s", self.id, error)
        finally:
            self.stop()  # lines that nobody waits for any more
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._report(self._stored)
            except Lost:
                self.stop()
            except ControlPlaneAway as error:
                log.warning("batch %s: %s", self.id, error)

    # --- the control plane --------------------------------------------------------------------------------------

    async def _report(self, said: dict[str, Any]) -> None:
        """Raises Lost or ControlPlaneAway."""
        sender = {"project_id": self._claim.project_id, "claim_id": self._claim.claim_id}
        async with self._reporting:
            content = await self._told("report", sender | said)
            told = decode(content, wire.BatchInstruction)
        self._go_on, self._closed, self._input.url = told.go_on, told.closed, told.input_url

    async def _told(self, what: str, message: dict[str, Any]) -> bytes:
        try:
            return await self._control.ask("POST", f"/batches/{self.id}/{what}", message)
        except Refused as refused:
            raise Lost(refused.detail) from None

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """Again and again while control plane or storage are away. Raises Lost, or ControlPlaneAway once it is over."""
        for tried in itertools.count():
            try:
                return await work()
            except ControlPlaneAway as error:
                if not self._going:
                    raise
                log.warning("batch %s: %s", self.id, error)
                await self._sleep(backoff_s(tried, MAX_BACKOFF_S))
        raise AssertionError("unreachable")

    # --- the input ----------------------------------------------------------------------------------------------

    async def _check(self) -> bool:
        """False when the batch has failed, as its input is not sound."""
        checker = await self._surely(partial(self._input.checked, lambda: self._going))
        if not self._going:
            return True  # what was not seen to its end is not judged
        if checker.errors:
            await self._surely(partial(self._report, {"outcome": "failed", "errors": checker.errors[:100]}))
            return False
        self._stored["total"] = checker.total
        await self._surely(partial(self._report, self._stored))
        return True

    # --- answers ------------------------------------------------------------------------------------------------

    async def _answer_all(self) -> None:
        while self._going and self._stored["done_bytes"] < self._input.size_bytes:
            if self._control.batches_wait and time.monotonic() - self._began_s > TURN_S:
                self._stopped = True
            else:
                await self._some()
        if not self._closed:
            await self._surely(partial(self._report, self._stored | {"outcome": self._outcome()}))

    def _outcome(self) -> str:
        if not self._go_on:
            return "cancelled"
        if self._stopped:
            return "released"
        return "expired" if self._expired else "completed"

    async def _some(self) -> None:
        """Answer the next lines and store that."""
        count = max(MIN_LINES, -(-self._stored["total"] // MAX_PARTS))
        asked = partial(self._input.lines, self._stored["done_bytes"], count, self._stored["total"])
        lines, blank = await self._surely(asked)
        if not lines:
            self._stored["done_bytes"] += blank
            return
        results = await self._results([line for line, _ in lines])
        if results:
            await self._store(results, lines[len(results) - 1][1])

    async def _results(self, lines: list[bytes]) -> list[Result]:
        """Of the first lines; of all of them, unless the run is to end or the answers are large."""
        first, tasks, self._kept_bytes = self._stored["done_lines"], list[asyncio.Task[Result | None]](), 0
        for number, raw in enumerate(lines, first):
            line, facts = read(raw)
            await self._room(facts)
            if not self._going or self._kept_bytes > KEPT_BYTES:
                self._slots.release()
                break
            task = asyncio.ensure_future(self._line(number, line))
            self._lines.add(task)
            task.add_done_callback(self._line_ended)
            tasks.append(task)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        return list(itertools.takewhile(lambda result: isinstance(result, Result), ended))  # type: ignore[arg-type]

    def _line_ended(self, task: "asyncio.Task[Result | None]") -> None:
        self._lines.discard(task)
        self._slots.release()
        if not task.cancelled() and (result := task.result()) is not None:
            self._kept_bytes += len(result.line)

    async def _room(self, facts: Facts) -> None:
        """Wait until a line may begin: live requests come first."""
        await self._slots.acquire()
        while self._going and self._left_s() > 0 and self._busy(facts.model):
            await self._sleep(BUSY_S)

    def _busy(self, model: str) -> bool:
        """Whether the deployments have as many requests of this gateway as lines may be under way at each."""
        snapshot = self._gateway.policy.snapshot
        endpoint = snapshot.endpoints.get(model) if snapshot is not None else None
        deployments = [d for tier in endpoint.tiers for d in tier] if endpoint is not None else []
        under_way = sum(d.outstanding for d in deployments)
        return bool(deployments) and under_way >= self._gateway.settings.batch_lines * len(deployments)

    async def _line(self, number: int, line: Line) -> Result | None:
        """None: it is not answered, and the batch ends here."""
        try:
            return await self._answer(number, line)
        except Exception:  # a line that nobody thought of must not stop the batch for ever
            log.exception("batch %s: line %d failed", self.id, number)
            answer = Answer(f"{self.id}.{number}")
            answer.refuse(Rejected("upstream_invalid"), self._claim.batch.endpoint)
            return answered(self.id, number, line.custom_id, answer)

    async def _answer(self, number: int, line: Line) -> Result | None:
        for tried in itertools.count():
            if self._left_s() <= 0:
                self._expired = True
                return expired(self.id, number, line.custom_id)
            answer = await self._asked(number, bytes(line.body))
            if answer is None:
                self._stopped = True  # the control plane knows what became of the key
                return None
            wait_s = answer.wait_s(tried)
            if wait_s is None:
                return answered(self.id, number, line.custom_id, answer)
            await self._pause(wait_s)
            if not self._going:
                return None
        return None

    async def _pause(self, wait_s: float) -> None:
        """Over at once when the batch is to end: nobody waits for what a deployment says of tomorrow."""
        wait_s = min(wait_s, self._left_s())
        while wait_s > 0 and self._going:
            await self._sleep(min(wait_s, PAUSE_S))
            wait_s -= PAUSE_S

    def _left_s(self) -> float:
        """Until the batch expires."""
        return self._claim.batch.expires_at - now_ms() / 1000

    async def _asked(self, number: int, body: bytes) -> Answer | None:
        """None when the key may not be used any more."""
        snapshot = self._gateway.policy.snapshot
        if snapshot is not self._seen and snapshot is not None:
            self._seen = snapshot
            self._key = next((key for key in snapshot.keys.values() if key.id == self._claim.key_id), None)
        if self._key is None:
            return None
        answer = await ask(self._gateway, self._client, self._claim, self._key, number, body)
        return None if answer.refused in KEY_GONE else answer

    # --- parts --------------------------------------------------------------------------------------------------

    async def _store(self, results: list[Result], read_bytes: int) -> None:
        """Only what was reported is in the output, and it is reported after it was stored."""
        before, failed = self._stored, sum(result.failed for result in results)
        parts = {kind: b"".join(r.line for r in results if r.failed is bad)
                 for kind, bad in (("output", False), ("error", True))}  # fmt: skip
        for kind, content in parts.items():
            if content:
                await self._surely(partial(self._put, kind, content))
        after = before | {
            "first_line": before["done_lines"], "done_lines": before["done_lines"] + len(results),
            "done_bytes": before["done_bytes"] + read_bytes, "failed": before["failed"] + failed,
            "completed": before["completed"] + len(results) - failed,
        }  # fmt: skip
        await self._surely(partial(self._report, after | {f"{kind}_bytes": len(it) for kind, it in parts.items()}))
        self._stored = after

    async def _put(self, kind: str, content: bytes) -> None:
        order = {
            "project_id": self._claim.project_id, "claim_id": self._claim.claim_id, "kind": kind,
            "first_line": self._stored["done_lines"], "bytes": len(content),
        }  # fmt: skip
        await self._control.put(decode(await self._told("parts", order), wire.Upload), content)

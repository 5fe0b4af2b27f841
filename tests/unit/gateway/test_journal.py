"""What was metered or leased survives a killed process, and a full or broken disk."""

import gzip
import json
import os
import signal
from pathlib import Path

import pytest
from gateway import metering
from gateway.control import MessageRefused
from gateway.core.shapes import Row
from gateway.journal import DirectoryLock, LeaseJournal, LeaseSlot, RowSegment, read_rows
from gateway.metering import Meter


def row(number: int) -> Row:
    return Row(f"e{number}", 1, "gw")


def in_a_process_that_is_killed(work: object) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_rows_survive_a_kill(tmp_path: Path) -> None:
    def work() -> None:
        segment = RowSegment(tmp_path / "b.rows", 4096)
        segment.append(b'{"a":1}\n{"a":2}\n', 2)
        segment._map[segment.at : segment.at + 4] = b'{"a"'  # killed in the middle of a third

    in_a_process_that_is_killed(work)
    assert read_rows(tmp_path / "b.rows") == b'{"a":1}\n{"a":2}\n'


def test_a_full_segment_says_so(tmp_path: Path) -> None:
    segment = RowSegment(tmp_path / "b.rows", 64)
    assert segment.append(b"x" * 60, 1) and not segment.append(b"x" * 5, 1)


def test_leases_survive_two_kills(tmp_path: Path) -> None:
    def work() -> None:
        journal = LeaseJournal(tmp_path / "leases")
        for number in range(3):
            mark = journal.open(LeaseSlot("key:k", "money_nanos", f"l{number}"))
            assert mark is not None
            mark[0] = number * 100
        journal.close("l1")

    in_a_process_that_is_killed(work)
    in_a_process_that_is_killed(lambda: LeaseJournal(tmp_path / "leases"))
    left = LeaseJournal(tmp_path / "leases").left_behind
    assert {(slot.lease_id, at_risk) for slot, at_risk in left} == {("l0", 0), ("l2", 200)}


def test_one_directory_one_process(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(OSError):
        DirectoryLock(tmp_path)


def files_of(directory: Path) -> list[Path]:
    return list(directory.iterdir())


class Storage:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False

    async def put(self, batch_id: str, rows: int, data: bytes) -> None:
        if self.away:
            raise OSError("away")
        assert gzip.decompress(data).count(b"\n") == rows
        self.objects[batch_id] = data

    def event_ids(self) -> list[str]:
        lines = (line for data in self.objects.values() for line in gzip.decompress(data).splitlines())
        return sorted(json.loads(line)["event_id"] for line in lines)


async def test_batches_wait_for_the_storage_and_come_once(tmp_path: Path) -> None:
    storage = Storage()
    storage.away = True
    meter = Meter(tmp_path, "boot1", storage.put, batch_rows=3, flush_s=60)
    for number in range(7):
        meter.add(row(number))
        meter.write()
    assert len(meter.waiting) == 2 and not await meter.flush_one()
    # The process dies here; the next one finds everything, also what was never sealed.
    storage.away = False
    heir = Meter(tmp_path, "boot2", storage.put, batch_rows=3, flush_s=60)
    heir.add(row(7))
    await heir.drain()
    assert storage.event_ids() == [f"e{number}" for number in range(8)]
    assert not heir.waiting


@pytest.mark.parametrize("disk", [True, False])
async def test_a_batch_that_is_refused_for_good_is_put_aside(tmp_path: Path, disk: bool) -> None:
    storage = Storage()

    async def put(batch_id: str, rows: int, data: bytes) -> None:
        if b"e0" in gzip.decompress(data):
            raise MessageRefused("POST /gateway/uploads answered 422")
        await storage.put(batch_id, rows, data)

    spool = tmp_path / "spool"
    meter = Meter(spool, "boot", put, batch_rows=1, flush_s=60)
    spool.mkdir()  # a disk that comes back: what was metered before is in memory
    if disk:
        meter = Meter(spool, "boot", put, batch_rows=1, flush_s=60)
    for number in range(3):
        meter.add(row(number))
        meter.write()
    await meter.drain()
    assert storage.event_ids() == ["e1", "e2"] and (meter.refused, len(meter.waiting)) == (1, 0)
    [kept] = [path for path in files_of(spool) if path.suffix == ".refused"]
    assert [json.loads(line)["event_id"] for line in kept.read_bytes().splitlines()] == ["e0"]
    assert not Meter(spool, "boot2", put, batch_rows=1, flush_s=60).waiting
    kept.rename(kept.with_suffix(".rows"))
    heir = Meter(spool, "boot3", storage.put, batch_rows=1, flush_s=60)
    await heir.drain()
    assert storage.event_ids() == ["e0", "e1", "e2"]


async def refuse(batch_id: str, rows: int, data: bytes) -> None:
    raise MessageRefused("POST /gateway/uploads answered 422")


async def test_what_cannot_be_put_aside_is_sent_again_after_the_next_start(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "boot", refuse, batch_rows=1, flush_s=60)
    for number in range(2):
        meter.add(row(number))
        meter.write()
    (tmp_path / f"{meter.waiting[0].batch_id}.refused").mkdir()  # in the way of the first
    await meter.drain()
    assert (meter.refused, meter.dropped, len(meter.waiting)) == (2, 0, 0)
    storage = Storage()
    await Meter(tmp_path, "boot2", storage.put, batch_rows=1, flush_s=60).drain()
    assert storage.event_ids() == ["e0"]


async def test_of_what_was_put_aside_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(tmp_path, "boot", refuse, batch_rows=2, flush_s=60)
    monkeypatch.setattr(metering, "MAX_REFUSED_BYTES", 2 * len(metering.encode_rows([row(0), row(1)])))
    for number in range(6):
        meter.add(row(number))
        meter.write()
    await meter.drain()
    kept = sorted(path for path in files_of(tmp_path) if path.suffix == ".refused")
    lines = b"".join(path.read_bytes() for path in kept).splitlines()
    assert [json.loads(line)["event_id"] for line in lines] == ["e2", "e3", "e4", "e5"]
    assert (meter.refused, meter.dropped) == (6, 2)


async def test_refused_captures_are_dropped(tmp_path: Path) -> None:
    meter = Meter(tmp_path, "boot", refuse, batch_rows=1, flush_s=60, keeps_refused=False)
    meter.add(row(1))
    await meter.drain()
    assert (meter.refused, len(meter.waiting), files_of(tmp_path)) == (1, 0, [])


async def test_an_upload_that_is_repeated_has_the_same_name_and_bytes(tmp_path: Path) -> None:
    sent: list[tuple[str, bytes]] = []

    async def put(batch_id: str, rows: int, data: bytes) -> None:
        sent.append((batch_id, data))
        if len(sent) == 1:
            raise OSError("the answer was lost")

    meter = Meter(tmp_path, "boot", put, batch_rows=10, flush_s=60)
    meter.add(row(1))
    await meter.drain()
    await meter.flush_one()
    assert sent[0] == sent[1]


async def test_without_a_disk_rows_stay_in_memory(tmp_path: Path) -> None:
    storage = Storage()
    meter = Meter(tmp_path / "missing", "boot", storage.put, batch_rows=10, flush_s=60)
    meter.add(row(1))
    await meter.drain()
    assert storage.event_ids() == ["e1"]


async def test_a_turn_may_have_more_rows_than_a_segment_holds(tmp_path: Path) -> None:
    storage = Storage()
    meter = Meter(tmp_path, "boot", storage.put, batch_rows=100_000, flush_s=60)
    for number in range(12_000):
        meter.add(row(number))
    await meter.drain()
    assert len(storage.event_ids()) == len(set(storage.event_ids())) == 12_000

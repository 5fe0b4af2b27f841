"""Memory-mapped journals: what was written to them survives the process, killed or not, at no system call per write."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec

SEGMENT_BYTES = 4 << 20
SLOT_BYTES = 256
SLOTS = 8192


class LeaseSlot(msgspec.Struct):
    """Which lease a slot belongs to, as far as closing it needs."""

    scope: str
    kind: str
    lease_id: str


class RowSegment:
    """One batch of metering rows, as JSON lines in a mapped file. Rows end where the zeros begin.

    Without a usable disk (``path`` None) the segment lives in memory until it is uploaded.
    """

    def __init__(self, path: Path | None, size: int = SEGMENT_BYTES) -> None:
        self.path = path
        self.size = size
        self.at = 0
        self.rows = 0
        self._map = _map_new(path, size) if path is not None else mmap.mmap(-1, size)

    def append(self, lines: bytes, rows: int) -> bool:
        """Write JSON lines; False when they do not fit any more."""
        end = self.at + len(lines)
        if end > self.size:
            return False
        self._map[self.at : end] = lines
        self.at = end
        self.rows += rows
        return True

    def content(self) -> bytes:
        return self._map[: self.at]

    def close(self) -> None:
        self._map.close()


def read_rows(path: Path) -> bytes:
    """The complete rows of a segment, also of one whose process was killed."""
    data = path.read_bytes()
    end = data.find(b"\0")
    data = data if end < 0 else data[:end]
    return data[: data.rfind(b"\n") + 1]


class LeaseJournal:
    """Amount at risk (spent + held) of each open money lease, so that a killed gateway can close them exactly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_behind = list(_read_slots(path)) if path.exists() else []
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        self._map = _map_new(fresh, SLOT_BYTES * SLOTS)
        self._view = memoryview(self._map)
        self._free = list(range(SLOTS - 1, -1, -1))
        self._used: dict[str, int] = {}
        for slot, at_risk in self.left_behind:  # until they are closed they must survive another crash
            mark = self.open(slot)
            if mark is not None:
                mark[0] = at_risk
        fresh.replace(path)

    def open(self, slot: LeaseSlot) -> memoryview | None:
        """A mark for a lease; None when the journal is full or the name too long (such a lease is not recovered)."""
        text = msgspec.json.encode(slot)
        if not self._free or len(text) > SLOT_BYTES - 8:
            return None
        number = self._free.pop()
        at = number * SLOT_BYTES
        self._view[at + 8 : at + 8 + len(text)] = text
        self._used[slot.lease_id] = number
        return self._view[at : at + 8].cast("q")

    def close(self, lease_id: str) -> None:
        """Forget a lease that the control plane has closed."""
        number = self._used.pop(lease_id, None)
        if number is not None:
            at = number * SLOT_BYTES
            self._view[at : at + SLOT_BYTES] = bytes(SLOT_BYTES)
            self._free.append(number)

    def drop(self) -> None:
        """Remove the file when every lease has been closed."""
        if not self._used:
            self.path.unlink(missing_ok=True)


def _read_slots(path: Path) -> Iterator[tuple[LeaseSlot, int]]:
    data = path.read_bytes()
    for at in range(0, len(data) - SLOT_BYTES + 1, SLOT_BYTES):
        text = data[at + 8 : at + SLOT_BYTES].rstrip(b"\0")
        if not text:
            continue
        try:
            slot = msgspec.json.decode(text, type=LeaseSlot)
        except msgspec.MsgspecError:
            continue
        yield slot, int.from_bytes(data[at : at + 8], "little", signed=True)


def _map_new(path: Path, size: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)  # a full disk shows here, not as a bus error in the middle of a write
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class DirectoryLock:
    """Keeps two processes from using one spool directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise BlockingIOError(f"{directory} is in use by another gateway process.") from None

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._descriptor)

"""How long chunks may wait: never when the machine has time, never for the first token, never without end."""

import json
from typing import Any

import pytest
from gateway.coalescer import MAX_HELD_BYTES, Coalescer
from gateway.core.coalesce import PROMPT_EVENTS, Load
from gateway.core.snapshot import BrokenSnapshot, load
from hypothesis import given
from hypothesis import strategies as st


class FakeTimer:
    def __init__(self, due_s: float, callback: Any) -> None:
        self.due_s = due_s
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[FakeTimer] = []

    def call_later(self, delay_s: float, callback: Any) -> FakeTimer:
        self.timers.append(FakeTimer(self.now_s + delay_s, callback))
        return self.timers[-1]

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in [t for t in self.timers if not t.cancelled and t.due_s <= self.now_s]:
            timer.cancelled = True
            timer.callback()


class FakeHot:
    def __init__(self, pressure: float) -> None:
        self.pressure = pressure
        self.loop = FakeLoop()


class FakeTransport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


def stream(pressure: float, wait_s: float = 0.02) -> tuple[Any, FakeHot, FakeTransport]:
    hot, transport = FakeHot(pressure), FakeTransport()
    coalescer: Any = Coalescer(hot, transport, wait_s)  # type: ignore[arg-type]
    for number in range(PROMPT_EVENTS):
        coalescer.write(b"data: %d\n\n" % number, False)
    assert len(transport.writes) == PROMPT_EVENTS, "what comes until the first token never waits"
    transport.writes.clear()
    return coalescer, hot, transport


def test_an_idle_machine_does_not_delay() -> None:
    coalescer, _, transport = stream(0.0)
    coalescer.write(b"data: a\n\n", False)
    assert transport.writes == [b"data: a\n\n"]


def test_a_busy_one_shares_writes_for_no_longer_than_allowed() -> None:
    coalescer, hot, transport = stream(1.0)
    for piece in (b"a", b"b"):
        coalescer.write(b"data: %b\n\n" % piece, False)
        hot.loop.pass_time(0.009)
    assert transport.writes == []
    hot.loop.pass_time(0.003)
    assert transport.writes == [b"data: a\n\ndata: b\n\n"]


def test_the_wait_grows_with_the_load() -> None:
    coalescer, hot, transport = stream(0.5)
    coalescer.write(b"x", False)
    hot.loop.pass_time(0.0101)
    assert transport.writes == [b"x"]


def test_the_end_takes_everything_along() -> None:
    coalescer, hot, transport = stream(1.0)
    coalescer.write(b"a", False)
    coalescer.write(b"end", True)
    assert transport.writes == [b"aend"]
    hot.loop.pass_time(1.0)
    assert transport.writes == [b"aend"]


def test_much_does_not_wait() -> None:
    coalescer, _, transport = stream(1.0)
    coalescer.write(b"a", False)
    coalescer.write(b"x" * MAX_HELD_BYTES, False)
    assert len(transport.writes) == 1


def test_what_is_dropped_is_not_written_later() -> None:
    coalescer, hot, transport = stream(1.0)
    coalescer.write(b"a", False)
    assert coalescer.drop() == b"a"
    hot.loop.pass_time(1.0)
    assert transport.writes == []


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=50), st.floats(0, 0.05), st.floats(0, 1)), max_size=30))
def test_bytes_keep_their_order_and_none_is_lost(steps: list[tuple[bytes, float, float]]) -> None:
    hot, transport = FakeHot(0.0), FakeTransport()
    coalescer = Coalescer(hot, transport, 0.02)  # type: ignore[arg-type]
    for data, passed_s, pressure in steps:
        hot.pressure = pressure
        coalescer.write(data, False)
        hot.loop.pass_time(passed_s)
    coalescer.write(b"end", True)
    assert b"".join(transport.writes) == b"".join(data for data, _, _ in steps) + b"end"


@pytest.mark.parametrize(
    ("load_", "pressure"), [(0.0, 0.0), (0.5, 0.0), (0.7, 0.5), (0.9, 1.0), (1.0, 1.0), (3.0, 1.0)]
)
def test_pressure_follows_the_load(load_: float, pressure: float) -> None:
    clocks = {"cpu": 5.0, "wall": 100.0}
    watch = Load(lambda: clocks["cpu"], lambda: clocks["wall"])
    clocks["cpu"] += load_ * 2
    clocks["wall"] += 2
    assert watch.pressure() == pytest.approx(pressure)
    assert watch.pressure() == 0.0, "no time has passed"


@pytest.mark.parametrize("wait_ms", [-1, 1001, 1e308])
def test_a_wait_without_sense_refuses_the_config(wait_ms: float) -> None:
    endpoint = {"name": "e", "tiers": [], "policy": {"coalesce_ms": wait_ms}}
    with pytest.raises(BrokenSnapshot, match="endpoint e: coalesce_ms"):
        load(json.dumps({"version": 1, "keys": [], "endpoints": [endpoint]}).encode())
    key = {"id": "k", "sha256": "00" * 32, "project_id": "p", "coalesce_ms": wait_ms}
    with pytest.raises(BrokenSnapshot, match="key k: coalesce_ms"):
        load(json.dumps({"version": 1, "keys": [key], "endpoints": []}).encode())

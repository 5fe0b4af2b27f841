"""How long an upload may be silent."""

from collections.abc import Coroutine
from typing import Any, cast

import pytest
from gateway.front import Front
from gateway.hot import Hot
from gateway.side_call import MAX_SIDE_S
from gateway.side_upload import KEEPING_S, SideUpload


class Task:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Server:
    """What an upload sees of the event loop and of its connection."""

    peer = "127.0.0.1"

    def __init__(self) -> None:
        self.now_s = 100.0
        self.loop = self.transport = self
        self.task = Task()

    def time(self) -> float:
        return self.now_s

    def spawn(self, work: Coroutine[Any, Any, None]) -> Task:
        work.close()
        return self.task

    def keeps_alive(self) -> bool:
        return True

    def resume_reading(self) -> None:
        """Nothing is to be read."""


@pytest.mark.parametrize(("ended", "silence_s"), [(False, MAX_SIDE_S), (True, KEEPING_S)])
async def test_what_has_come_may_take_long_to_keep(ended: bool, silence_s: float) -> None:
    server = Server()
    upload = SideUpload(cast(Hot, server), cast(Front, server), b"POST", b"/v1/files", b"", [])
    upload.more(b"a piece")
    upload.begin()
    if ended:
        upload.last(b"the rest")
    server.now_s += silence_s
    upload.sweep(server.now_s)
    assert not server.task.cancelled
    server.now_s += 1
    upload.sweep(server.now_s)
    assert server.task.cancelled

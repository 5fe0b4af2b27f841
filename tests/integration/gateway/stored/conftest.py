"""A gateway with the real control plane behind it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_core.settings import settings
from gateway.control import ControlPlane
from gateway.settings import Settings

from ..conftest import FORMS
from .control_plane import BUCKET, URL, Plane, make_plane
from .runs import Engine


@pytest.fixture
def plane(aws_tables: None, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setenv("METERING_BUCKET", BUCKET)
    settings.cache_clear()
    plane = make_plane(call)
    monkeypatch.setattr("gateway.runtime.ControlPlane", lambda *names: ControlPlane(*names[:3], plane.transport))
    return plane


@pytest.fixture
async def http(plane: Plane, form: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of either form of the gateway, with the key of the plane."""
    asked: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "poll_s": 30.0, "flush_s": 30.0, "drain_s": 1.0}
    headers = {"authorization": f"Bearer {plane.secret}"}
    async with (
        FORMS[form](Settings(URL, plane.token, tmp_path, "gw-test", **asked)) as (_, port, _),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, headers=headers) as client,
    ):
        yield client


@pytest.fixture
def stranger(plane: Plane, call: Callable[..., Any]) -> str:
    """The key of another project."""
    other = call("POST", "/projects", {"name": "beta"}).ok(201)["id"]
    return str(plane.add_key(other)["secret"])


@pytest.fixture(autouse=True)
def _no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the test of them has some: they come by real time."""
    monkeypatch.setattr("gateway.batch_run.BEAT_S", 1e6)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def served(plane: Plane) -> Plane:
    """The plane with an endpoint ``chat`` that costs something."""
    plane.publish("chat", "http://10.0.0.7:8000", {"input_nanos_per_token": 10, "output_nanos_per_token": 30})
    return plane

"""Every test runs against fakes on this machine: AWS is moto in process, the network is closed except for loopback."""

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    STAGE="test",
    EVENT_BUS="foundry-test",
    POWERTOOLS_METRICS_NAMESPACE="foundry",
    POWERTOOLS_SERVICE_NAME="foundry",
    POWERTOOLS_LOG_LEVEL="ERROR",
    # Threads of NumPy's small products wait for each other longer than they compute, the more so in two processes.
    OPENBLAS_NUM_THREADS="1",
    # Every HTTP client loads the authorities it trusts, which for the public ones takes longer than most tests.
    SSL_CERT_FILE=str(Path(__file__).with_name("authority.pem")),
)
os.environ.pop("SSL_CERT_DIR", None)
os.environ.pop("AWS_ENDPOINT_URL", None)
os.environ.pop("AWS_PROFILE", None)

import moto.core.models  # noqa: F401 - before any client is made: those that are older would look for AWS itself
import pytest
from foundry_local.deployer import synthesize
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

_PLATFORM = "tests/e2e/"

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")
_connect = socket.socket.connect


def _connect_loopback_only(self: socket.socket, address: object) -> None:
    if self.family != socket.AF_UNIX and not str(address[0]).startswith(_LOOPBACK):  # type: ignore[index]
        raise RuntimeError(f"tests may not open a connection to {address!r}")
    _connect(self, address)  # type: ignore[arg-type]


class WholeFiles(LoadFileScheduling):
    """A file runs in one process; so do all that share the local platform."""

    def _split_scope(self, nodeid: str) -> str:
        return _PLATFORM if nodeid.startswith(_PLATFORM) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> WholeFiles:
    return WholeFiles(config, log)


@pytest.fixture(autouse=True, scope="session")
def _closed_network() -> None:
    socket.socket.connect = _connect_loopback_only  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def assembly() -> Path:
    """The CDK app synthesized for stage `test`: once per change of its sources, however many test processes ask."""
    root = Path(__file__).parents[1]
    out = root / ".foundry" / "test-assembly"
    out.parent.mkdir(exist_ok=True)
    with (out.parent / "test-assembly.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        synthesize(root, out, {"stage": "test"})
    return out


@pytest.fixture(scope="session")
def templates(assembly: Path) -> dict[str, Any]:
    """Stack (`data`, `api`, …) → its CloudFormation template."""
    return {path.name.split(".")[0]: json.loads(path.read_text()) for path in assembly.glob("*.template.json")}

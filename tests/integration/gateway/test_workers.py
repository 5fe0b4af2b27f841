"""The gateway as a process: two workers on one port, a worker that dies, a SIGTERM while streams run."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gateway.core.shapes import Row
from gateway.journal import DirectoryLock, read_rows
from gateway.workers import CANNOT_START

ROOT = Path(__file__).parents[3]


class EngineHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(20):
            self._chunk(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number)
            time.sleep(0.03)
        self._chunk(b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":20}}\n\ndata: [DONE]\n\n')
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def engine() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EngineHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def gateway(engine: int, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Two workers that never reach a control plane: they start from their disk copies."""
    for worker in range(2):
        keep(tmp_path / f"gw-{worker}", config_of(engine))
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment(tmp_path, port, 2))
    wait_for_status(port, 200)
    yield process, port
    if process.poll() is None:
        process.terminate()  # killed, it would leave its workers behind
        process.wait(20)


def config_of(engine: int) -> bytes:
    return json.dumps({
        "version": 1,
        "keys": [{"id": "k", "sha256": hashlib.sha256(b"sk").hexdigest(), "project_id": "p"}],
        "endpoints": [{"name": "m", "tiers": [[{"id": "d", "url": f"http://127.0.0.1:{engine}", "model": "m"}]]}],
    }).encode()  # fmt: skip


def keep(directory: Path, config: bytes) -> None:
    directory.mkdir()
    (directory / "snapshot.json").write_bytes(config)


def environment(spool: Path, port: int, workers: int) -> dict[str, str]:
    return os.environ | {
        "GATEWAY_CONTROL_PLANE_URL": f"http://127.0.0.1:{free_port()}",
        "GATEWAY_TOKEN": "t",
        "GATEWAY_SPOOL_DIR": str(spool),
        "GATEWAY_GATEWAY_ID": "gw",
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKERS": str(workers),
        "PYTHONPATH": str(ROOT / "gateway_container"),
    }


def wait_for_status(port: int, status: int) -> None:
    """Of the readiness probe."""
    ends_s = time.monotonic() + 20
    while time.monotonic() < ends_s:
        with contextlib.suppress(OSError):
            connection = HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == status:
                return
        time.sleep(0.05)
    pytest.fail(f"the readiness probe never answered {status}")


def start_stream(port: int) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps({"model": "m", "messages": [], "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": "Bearer sk"})
    return connection


def test_sigterm_lets_streams_end_and_loses_no_row(
    gateway: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    process, port = gateway
    streams = [start_stream(port) for _ in range(6)]
    responses = [stream.getresponse() for stream in streams]
    process.send_signal(signal.SIGTERM)
    for response in responses:
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert process.wait(20) == 0
    rows = [json.loads(line) for path in tmp_path.glob("*/*.rows") for line in read_rows(path).splitlines()]
    assert [row["outcome"] for row in rows if row["endpoint"]] == ["ok"] * 6
    assert {row["output_tokens"] for row in rows} == {20} and set(rows[0]) == set(Row.__struct_fields__)


def test_a_killed_worker_is_replaced(gateway: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = gateway
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    before = children.read_text().split()
    os.kill(int(before[0]), signal.SIGKILL)
    ends_s = time.monotonic() + 20
    while time.monotonic() < ends_s:
        now = children.read_text().split()
        if len(now) == 2 and set(now) != set(before):
            break
        time.sleep(0.05)
    assert len(now) == 2 and before[0] not in now
    wait_for_status(port, 200)


@pytest.mark.parametrize("broken", [b"", b"{", b'{"version":1', b"\xff\xfe\x00", b'{"version":1,"endpoints":[{}]}'])
def test_a_broken_disk_copy_is_refused_in_clear_words(tmp_path: Path, broken: bytes) -> None:
    """It lives on, not ready, and asks the control plane: a restart would find the same copy."""
    keep(tmp_path / "gw", broken)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway"], env=environment(tmp_path, port, 1), stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_status(port, 503)
        assert process.poll() is None
    finally:
        process.terminate()
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 0 and "Traceback" not in said
    [line] = [line for line in said.splitlines() if "disk copy" in line]
    assert str(tmp_path / "gw" / "snapshot.json") in line and "broken" in line
    assert said.count("config refused: ") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_spool_that_cannot_be_written_ends_it_with_one_line(tmp_path: Path, workers: int) -> None:
    (tmp_path / "file").touch()
    done = run_to_its_end(environment(tmp_path / "file", free_port(), workers))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "GATEWAY_SPOOL_DIR" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_cannot_start_are_not_started_again(tmp_path: Path, workers: int) -> None:
    with DirectoryLock(tmp_path / ("gw" if workers == 1 else "gw-1")):
        done = run_to_its_end(environment(tmp_path, free_port(), workers))
    assert done.returncode == CANNOT_START and "starting it again" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "cannot start" in line]
    assert "in use by another gateway process" in line


def run_to_its_end(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)


def test_a_missing_setting_is_one_plain_line() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment["PYTHONPATH"] = str(ROOT / "gateway_container")
    done = run_to_its_end(environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "GATEWAY_CONTROL_PLANE_URL" in done.stderr

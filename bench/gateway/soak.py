"""Minutes of mixed load with engine kills, config swaps and control-plane outages; then every row is checked.

What must hold: no client sees an error beyond the expected ones, every request has exactly one metering row and it says
what the client saw, the control plane's counter is the sum of the rows, and the gateway's memory does not grow.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvicorn
from soak_clients import LIMITED, MAX_BODY_BYTES, OPEN, Clients, Seen

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "gateway_container"))
from gateway.standin import StandIn  # noqa: E402

TOKEN = "soak-gateway-token"
ENGINES = 3
PRICE = {"input_nanos_per_token": 150, "output_nanos_per_token": 600}
BUDGET = ("key:limited", "money_nanos", None)
AFTERMATH_S = 3.0  # so long after an outage budgets may still be refused


def free_ports(count: int) -> list[int]:
    """Below those of outgoing connections: one of these must not take the port of an engine that is down."""
    found: list[int] = []
    for port in range(21_000, 32_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("There are no free ports.")


class Engines:
    """Processes that are killed one at a time and come back a moment later."""

    def __init__(self, work: Path, ports: list[int]) -> None:
        self.binary = str(work / "engine")
        self.ports = ports
        self.kills = 0
        self._processes = [self._start(port) for port in self.ports]

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([self.binary, "-p", str(port), "-n", "24", "-i", "2000"])

    def kill(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()
        self.kills += 1

    def revive(self, number: int) -> None:
        self._processes[number] = self._start(self.ports[number])

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def config(ports: list[int], version: int) -> dict[str, Any]:
    limits = {"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "budget_nanos": 10**15}
    keys = [
        {"id": "open", "sha256": hashlib.sha256(OPEN.encode()).hexdigest(), "project_id": "prj"},
        {
            "id": "limited",
            "sha256": hashlib.sha256(LIMITED.encode()).hexdigest(),
            "project_id": "prj",
            "limits": limits,
        },
    ]
    tier = [
        {"id": f"dep_{p}", "url": f"http://127.0.0.1:{p}", "model": "mock", "weight": 1 + version % 2} for p in ports
    ]
    endpoint = {"name": "mock", "tiers": [tier], "price": PRICE, "max_output_tokens": 4096, "policy": {"retries": 3}}
    return {"version": version, "keys": keys, "endpoints": [endpoint]}


class Soak:
    """Everything of one run."""

    def __init__(self, work: Path, seconds: float, clients: int, workers: int) -> None:
        self.work, self.seconds, self.clients_count, self.workers = work, seconds, clients, workers
        self.control_port, self.port, *engine_ports = free_ports(2 + ENGINES)
        self.engines = Engines(work, engine_ports)
        self.stand_in = StandIn(config(self.engines.ports, 1), TOKEN)
        self.outages: list[tuple[float, float]] = []
        self.versions = 1
        self.rss_mb: list[float] = []

    async def run(self) -> dict[str, Any]:
        control_port, port = self.control_port, self.port
        quiet = uvicorn.Config(self.stand_in.app(), host="127.0.0.1", port=control_port, log_level="critical")
        server = uvicorn.Server(quiet)
        serving = asyncio.create_task(server.serve())
        self.gateway = self._start_gateway(control_port, port)
        try:
            await self._until_ready(port)
            self.clients = Clients(port, seed=1)
            self.begun_s = asyncio.get_running_loop().time()
            troubles = [asyncio.create_task(work()) for work in (self._kill, self._swap, self._outage, self._measure)]
            load = asyncio.create_task(self.clients.run(self.clients_count))
            await asyncio.wait([load, *troubles], timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION)
            self.clients.stopping = True
            await load
            for task in troubles:
                task.cancel()
            self.stand_in.away = False
            await asyncio.to_thread(self._stop_gateway)
        finally:
            self.gateway.kill()
            self.engines.close()
            server.should_exit = True
            await serving
        return self.verdict()

    def _start_gateway(self, control_port: int, port: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "GATEWAY_CONTROL_PLANE_URL": f"http://127.0.0.1:{control_port}", "GATEWAY_TOKEN": TOKEN,
            "GATEWAY_SPOOL_DIR": str(self.work / "soak-spool"), "GATEWAY_PORT": str(port),
            "GATEWAY_WORKERS": str(self.workers), "GATEWAY_GATEWAY_ID": f"soak-{os.getpid()}",
            "GATEWAY_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
            "PYTHONPATH": str(Path(os.environ.get("GATEWAY_PACKAGE", ROOT / "gateway_container")).resolve()),
        }  # fmt: skip
        log = (self.work / "soak.log").open("wb")
        python = os.environ.get("GATEWAY_PYTHON", sys.executable)
        return subprocess.Popen([python, "-m", "gateway"], env=environment, stdout=log, stderr=log)

    def _stop_gateway(self) -> None:
        self.gateway.send_signal(signal.SIGTERM)
        self.gateway.wait(60)

    async def _until_ready(self, port: int) -> None:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            await asyncio.sleep(1.0)
            return
        raise SystemExit(f"The gateway does not start: see {self.work / 'soak.log'}.")

    # --- troubles -----------------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(5.0)
            self.engines.kill(number % ENGINES)
            await asyncio.sleep(1.5)
            self.engines.revive(number % ENGINES)
            number += 1

    async def _swap(self) -> None:
        while True:
            await asyncio.sleep(2.0)
            self.versions += 1
            self.stand_in.put_config(config(self.engines.ports, self.versions))
            if self.versions % 5 == 0:
                await asyncio.sleep(1.5)
                self.stand_in.put_config(b"{broken")

    async def _outage(self) -> None:
        """Twice a minute: a short one, which is bridged, and one that is not."""
        loop = asyncio.get_running_loop()
        while True:
            for pause_s, outage_s in ((15.0, 1.0), (20.0, 10.0)):
                await asyncio.sleep(pause_s)
                self.outages.append((loop.time(), loop.time() + outage_s))
                self.stand_in.away = True
                await asyncio.sleep(outage_s)
                self.stand_in.away = False

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.rss_mb.append(tree_rss_mb(self.gateway.pid))

    # --- the verdict --------------------------------------------------------------------------------------------

    def verdict(self) -> dict[str, Any]:
        rows = [row for row in self.stand_in.rows() if row["route"] != "/"]
        known = Counter(row["request_id"] for row in rows)
        seen = self.clients.seen
        by_id = {row["request_id"]: row for row in rows}
        wrong = [f"{name}: {why}" for name, one in seen.items() if (why := self.objection(one, by_id.get(name)))]
        wrong += [f"{name}: {count} rows" for name, count in known.items() if count > 1 or name not in seen]
        spent = sum(row["cost_nanos"] for row in rows if row["key_id"] == "limited")
        committed = self.stand_in.escrow.committed.get(BUDGET, 0)
        first, last = self._memory()
        print("\n".join(wrong[:20]))
        return {
            "seconds": self.seconds, "workers": self.workers, "requests": len(seen), "rows": len(rows),
            "wrong": len(wrong), "outcomes": dict(Counter(row["outcome"] for row in rows)),
            "statuses": {str(k): v for k, v in sorted(Counter(one.status for one in seen.values()).items())},
            "cost_nanos": spent, "committed_nanos": committed, "engine_kills": self.engines.kills,
            "config_swaps": self.versions - 1, "outages": len(self.outages), "rss_mb_early": first, "rss_mb_late": last,
            "ok": not wrong and spent == committed and last <= first * 1.1 + 2.0,
        }  # fmt: skip

    def _memory(self) -> tuple[float, float]:
        """The medians of the second and of the last quarter: the first one is warming up."""
        quarter = max(len(self.rss_mb) // 4, 1)
        second, last = sorted(self.rss_mb[quarter : 2 * quarter]), sorted(self.rss_mb[-quarter:])
        return second[len(second) // 2], last[len(last) // 2]

    def objection(self, one: Seen, row: dict[str, Any] | None) -> str:
        """Why this is not what had to happen; empty when it is."""
        if row is None:
            return f"no row, the {one.kind} client saw {one.status} at {one.at_s - self.begun_s:.1f} s"
        expected = self.expected(one)
        if one.status not in expected:
            return f"status {one.status} {one.code}, expected {sorted(expected)}; the row says {row['outcome']}"
        if one.status and row["status"] != one.status:
            return f"status {one.status}, the row says {row['status']}"
        if one.kind == "cancelled" and not one.whole:
            return "" if row["outcome"] in ("cancelled", "ok", "cut") else f"cancelled, the row says {row['outcome']}"
        if one.status == 200 and not one.whole:
            return "" if row["outcome"] == "cut" else f"broken off, the row says {row['outcome']}"
        if one.status == 200 and (row["input_tokens"], row["output_tokens"]) != (one.input_tokens, one.output_tokens):
            told = f"{one.input_tokens}/{one.output_tokens}"
            return f"tokens {told}, the row says {row['input_tokens']}/{row['output_tokens']}"
        return ""

    def expected(self, one: Seen) -> set[int]:
        if one.kind == "wrong_key":
            return {401}
        if one.kind == "too_long":
            return {413}
        found = {200, 502} if one.kind == "form" else {200}  # a form that was half sent is not tried elsewhere
        away = any(begun_s - 1 <= one.at_s <= ended_s + AFTERMATH_S for begun_s, ended_s in self.outages)
        return found | ({503} if one.key == LIMITED and away else set())


def tree_rss_mb(pid: int) -> float:
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            pids += [int(child) for child in children.read_text().split()]
    page_mb = resource.getpagesize() / 2**20
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids) * page_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".foundry/bench"))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    begun_s = time.monotonic()
    result = asyncio.run(Soak(options.work.resolve(), options.seconds, options.clients, options.workers).run())
    result["took_s"] = round(time.monotonic() - begun_s, 1)
    print(json.dumps(result))
    sys.exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()

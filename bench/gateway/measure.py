"""What every measurement needs: engines, load and control plane on one core; work per CPU second of a contestant."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import contestants as entry
from contestants import Contestant

Figures = dict[str, float]


class Range:
    """The engines, the load generator and the control plane of one run."""

    def __init__(self, work: Path, core: str, tokens: int) -> None:
        self.work = work
        self.core = core
        ports = ",".join(map(str, entry.ENGINE_PORTS))
        self._helpers = [
            subprocess.Popen(["taskset", "-c", core, str(work / "engine"), "-p", ports, "-n", str(tokens)])
        ]

    def control_plane(self, config: dict[str, object]) -> None:
        (self.work / "config.json").write_text(json.dumps(config))
        command = ["taskset", "-c", self.core, sys.executable, "-m", "gateway.standin"]
        command += [str(self.work / "config.json"), str(entry.CONTROL_PORT)]
        environment = os.environ | {"PYTHONPATH": str(entry.ROOT / "gateway_container")}
        process = subprocess.Popen(command, env=environment)
        self._helpers.append(process)
        entry.wait_for_port(entry.CONTROL_PORT, 30, process)

    def end_control_plane(self) -> None:
        process = self._helpers.pop()
        process.terminate()
        process.wait()

    def load(self, port: int, body: Path, seconds: float, *options: str) -> dict[str, Any]:
        command = ["taskset", "-c", self.core, str(self.work / "load"), "-u", f"127.0.0.1:{port}", "-b", str(body)]
        command += ["-d", str(seconds), "-w", "0", "-H", f"Authorization: Bearer {entry.KEY}", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def close(self) -> None:
        for process in self._helpers:
            process.terminate()
            process.wait()


def per_cpu(contestant: Contestant, field: Range, body: Path, seconds: float, *options: str) -> Figures:
    """One measurement after a short warm-up."""
    field.load(contestant.port, body, 0.7, *options)
    before_s = contestant.cpu_s()
    result = field.load(contestant.port, body, seconds, *options)
    cpu_s = max(contestant.cpu_s() - before_s, 1e-9)
    figures = {"per_cpu_s": result["done"] / cpu_s, "errors": result["errors"] + result["broken"]}
    if result["chunks"]:
        figures["us_per_chunk"] = cpu_s / result["chunks"] * 1e6
    return figures | {
        "per_s": result["requests_per_s"],
        "p50_us": result["latency_us"]["p50"],
        "p99_us": result["latency_us"]["p99"],
    }

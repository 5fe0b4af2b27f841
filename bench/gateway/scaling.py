"""Two workers beside one, and the memory of a thousand open streams.

On a machine with two cores the load needs one of them, so that two workers cannot show twice the throughput there. What
can be shown is requests per CPU second: where two workers need no more CPU per request than one does, nothing is shared
that they would wait for, and a second core doubles what they do. ``two_workers_per_s`` is measured from four cores on.
"""

import os
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import contestants as entry
from contestants import Contestant
from measure import Range, per_cpu

STREAMS = 1000
SLOW_PORTS = (9103, 9104)
CHUNK_GAP_US = 50_000
CORES = os.cpu_count() or 1


def two_workers(field: Range, body: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over interleaved rounds; empty when the gateway does not start."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, figures in found.items():
            gateway = entry.foundry(field.work, workers=workers)
            if not gateway.start(field.work, "0,1" if workers == 2 else "0"):
                gateway.stop()
                return {}
            try:
                figures.append(per_cpu(gateway, field, body, seconds, "-c", "64"))
            finally:
                gateway.stop()
    one, two = (statistics.median(f["per_cpu_s"] for f in found[workers]) for workers in (1, 2))
    result = {
        "one_worker_per_cpu_s": round(one),
        "two_workers_per_cpu_s": round(two),
        "two_to_one_cpu": round(two / one, 3),
    }
    if CORES >= 4:
        rates = [statistics.median(f["per_s"] for f in found[workers]) for workers in (1, 2)]
        result["two_to_one_per_s"] = round(rates[1] / rates[0], 3)
    return result


def open_streams(field: Range, body: Path) -> dict[str, float]:
    """Memory of one worker (10,000 keys in its config) before and while the streams are open; empty where it fails."""
    slow = ["taskset", "-c", field.core, str(field.work / "engine"), "-p", ",".join(map(str, SLOW_PORTS)), "-n", "200"]
    engine = subprocess.Popen([*slow, "-i", str(CHUNK_GAP_US)])
    field.end_control_plane()
    field.control_plane(entry.gateway_config(ports=SLOW_PORTS))
    gateway = entry.foundry(field.work)
    try:
        if not gateway.start(field.work, "0"):
            return {}
        return _while_open(gateway, field, body)
    finally:
        gateway.stop()
        engine.kill()
        engine.wait()


def _while_open(gateway: Contestant, field: Range, body: Path) -> dict[str, float]:
    idle_mb = gateway.rss_mb()
    options = ("-s", "-c", str(STREAMS))
    load = threading.Thread(target=field.load, args=(gateway.port, body, 8.0, *options))
    load.start()
    time.sleep(6.0)
    open_mb = gateway.rss_mb()
    load.join()
    return {"rss_mb_idle": round(idle_mb, 1), f"rss_mb_{STREAMS}_streams": round(open_mb, 1)}

"""The contest: every gateway alone on one core, load and engines on another, in interleaved rounds.

What is quoted is work per CPU second of the gateway's process tree, the median over the rounds: on a shared machine
that is steadier than work per second, and only ratios within one run mean anything.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import contestants as entry
import scaling
from contestants import Contestant
from measure import Figures, Range, per_cpu


def bodies(work: Path) -> dict[str, Path]:
    """A chat of 1 KB, the same streamed, and one of 220 KB."""
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "x" * 830}]
    chat = {"model": "mock", "messages": messages, "max_tokens": 256, "temperature": 0.7}
    long = chat | {"messages": [{"role": "user", "content": " ".join(f"word{n}" for n in range(25_000))}]}
    paths = {}
    for name, body in (("chat", chat), ("stream", chat | {"stream": True}), ("long", long)):
        paths[name] = work / f"{name}.json"
        paths[name].write_text(json.dumps(body, separators=(",", ":")))
    return paths


def measure(contestant: Contestant, field: Range, paths: dict[str, Path], seconds: float) -> dict[str, Figures]:
    """All loads against one contestant that is running."""
    slow = contestant.name == "litellm"
    return {
        "chat": per_cpu(contestant, field, paths["chat"], seconds, "-c", "8" if slow else "32"),
        "stream": per_cpu(contestant, field, paths["stream"], seconds, "-s", "-c", "8" if slow else "32"),
        "open_loop": per_cpu(contestant, field, paths["chat"], seconds, "-r", "20" if slow else "300"),
        "long": per_cpu(contestant, field, paths["long"], seconds, "-c", "4"),
    }


def rounds(field: Range, paths: dict[str, Path], names: list[str], count: int, seconds: float) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for number in range(count):
        for name in names:
            contestant = entry.PEERS[name](field.work)
            if contestant is None or not contestant.start(field.work, "0"):
                print(f"round {number + 1}: {name} is not here or does not start", flush=True)
                if contestant is not None:
                    contestant.stop()
                continue
            try:
                figures = measure(contestant, field, paths, seconds)
            finally:
                contestant.stop()
            found[name].append(figures)
            print(f"round {number + 1}: {name} {json.dumps(figures)}", flush=True)
    return found


def median(found: list[Any], load: str, figure: str) -> float | None:
    values = [figures[load][figure] for figures in found if figure in figures[load]]
    return round(statistics.median(values), 2) if values else None


def prefix_affinity(field: Range, paths: dict[str, Path], seconds: float, names: list[str]) -> Figures:
    """220 KB prompts with prefix affinity; sglang-router's cache-aware policy was on all the time."""
    field.end_control_plane()
    field.control_plane(entry.gateway_config("prefix_affinity"))
    gateway = entry.foundry(field.work, "prefix_affinity")
    if "gateway" not in names or not gateway.start(field.work, "0"):
        return {}
    try:
        return per_cpu(gateway, field, paths["long"], seconds, "-c", "4")
    finally:
        gateway.stop()


def more_of_ours(field: Range, paths: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """What only our own gateway is measured for."""
    found = scaling.two_workers(field, paths["chat"], options.rounds, options.seconds)
    return found | scaling.open_streams(field, paths["stream"])


def summary(found: dict[str, list[Any]], affinity: Figures) -> dict[str, Any]:
    every = {name: median(figures, "chat", "per_cpu_s") for name, figures in found.items()}
    result: dict[str, Any] = {name: every.get(name) for name in entry.PEERS}
    ours = found.get("gateway", [])
    result["us_per_chunk"] = median(ours, "stream", "us_per_chunk")
    result["us_per_chunk_nginx"] = median(found.get("nginx", []), "stream", "us_per_chunk")
    for name in ("gateway", "nginx"):
        for figure in ("p50_us", "p99_us"):
            result[f"{name}_{figure}_at_300_per_s"] = median(found.get(name, []), "open_loop", figure)
    result["long_prompt_affinity"] = round(affinity["per_cpu_s"], 1) if affinity else None
    result["long_prompt_sglang_router"] = median(found.get("sglang_router", []), "long", "per_cpu_s")
    if every.get("gateway") and every.get("nginx"):
        result["gateway_to_nginx"] = round(every["gateway"] / every["nginx"], 3)  # type: ignore[operator]
    if every.get("gateway") and every.get("sglang_router"):
        result["gateway_to_sglang_router"] = round(every["gateway"] / every["sglang_router"], 3)  # type: ignore[operator]
    result["errors"] = sum(load["errors"] for rows in found.values() for figures in rows for load in figures.values())
    return result


def interpreter() -> str:
    """What our gateway runs on; one that is built without PGO is slower than the image's."""
    ask = "import sys; print(sys.version)"
    return subprocess.run([entry.PYTHON, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".foundry/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", choices=list(entry.PEERS), default=list(entry.PEERS))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    core = str((os.cpu_count() or 1) - 1)
    paths = bodies(options.work)
    field = Range(options.work, core, tokens=64)
    try:
        time.sleep(0.3)
        field.control_plane(entry.gateway_config())
        found = rounds(field, paths, options.only, options.rounds, options.seconds)
        extra = more_of_ours(field, paths, options) if "gateway" in options.only else {}
        affinity = prefix_affinity(field, paths, options.seconds, options.only)
    finally:
        field.close()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; gateway on {interpreter()}")
    print(json.dumps(summary(found, affinity) | extra))


if __name__ == "__main__":
    main()

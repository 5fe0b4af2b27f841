"""Error and speed of the simulator beside AIConfigurator on the same measured rows. See README.md."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from foundry_sim.facts.architecture import resolve
from foundry_sim.facts.devices import device
from foundry_sim.facts.memory import budget
from foundry_sim.facts.precision import Precision
from foundry_sim.predict import Method, predict, predict_arrays
from foundry_sim.train.dataset import Dataset, load
from foundry_sim.train.validate import left_out

SETUP = (resolve("deepseek-ai/DeepSeek-R1"), device("b200_sxm"), Precision("fp8", "fp8", "fp8"))
COUNT, REPEATS = 200_000, 5
METHODS: tuple[Method, ...] = ("heuristic", "regressor")
PEER_DEVICES = {"h100_sxm", "h200_sxm", "b200_sxm", "gb200", "a100_sxm", "l40s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path, help="interpreter of an environment with aiconfigurator")
    parser.add_argument("--rows", type=int, default=200)
    given = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # of one core; NumPy has read it by now
        os.execve(sys.executable, sys.orig_argv, os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    data = load(known_speculation=False)
    chosen = sample(data, given.rows)
    print(f"rows: {len(chosen)} closed-loop runs on NVIDIA devices, spread over all curves\n")
    peer = ask(given.peer_python, [row(data, i) for i in chosen]) if given.peer_python else None
    errors(data, chosen, peer)
    print()
    speed(data, peer)


def sample(data: Dataset, count: int) -> list[int]:
    usable = [
        i
        for i, m in enumerate(data.rows)
        if m.kind == "closed" and m.device in PEER_DEVICES and m.ttft_ms_mean and m.tpot_ms_mean and m.tp <= 8
    ]
    return sorted(np.random.default_rng(0).permutation(usable)[:count].tolist())


def row(data: Dataset, i: int) -> dict[str, Any]:
    m, c = data.rows[i], data.frame.cases[i]
    facts = {n: getattr(m, n) for n in ("model", "device", "engine", "isl", "osl", "load", "tp", "dp", "ep")}
    shipped = c.precision.weights == c.architecture.checkpoint_precision.weights
    return facts | {"weights": None if shipped else c.precision.weights, "moe": c.architecture.is_moe}


def ask(python: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("peer.py")
    done = subprocess.run(
        [str(python), str(script)], input=json.dumps(rows), stdout=subprocess.PIPE, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def errors(data: Dataset, chosen: list[int], peer: list[dict[str, Any]] | None) -> None:
    held = left_out(data)["curve"].errors
    both = [k for k in range(len(chosen)) if peer is None or "error" not in peer[k]]
    if peer is not None:
        print(f"the peer answered {len(both)} of {len(chosen)}; the comparison is over those")
    print(f"{'':28}{'MAPE %':>8}{'median %':>10}{'p90 %':>8}")
    for head in ("tpot", "ttft"):
        ours = np.expm1(held[head][[chosen[k] for k in both]])
        line(f"foundry_sim {head} (held out)", ours[np.isfinite(ours)])
        if peer is not None:
            truth = np.array([getattr(data.rows[chosen[k]], f"{head}_ms_mean") for k in both])
            line(f"aiconfigurator {head}", np.array([peer[k][f"{head}_ms"] for k in both]) / truth - 1.0)


def line(name: str, relative: Any) -> None:
    size = 100 * np.abs(relative)
    print(f"{name:28}{size.mean():8.1f}{np.median(size):10.1f}{np.quantile(size, 0.9):8.1f}")


def speed(data: Dataset, peer: list[dict[str, Any]] | None) -> None:
    requests = [c.request for c in data.frame.cases]
    started = time.process_time()
    predict(requests)
    print(f"foundry_sim predict: {1e6 * (time.process_time() - started) / len(requests):.0f} µs per mixed request")
    for name, columns in batches().items():
        for method in METHODS:
            rate = per_second(columns, method)
            print(f"foundry_sim predict_arrays, {name}, {method}: {rate:,.0f} configurations/s/core")
    if peer is not None:
        taken = 1e3 * np.array([a["seconds"] for a in peer if "seconds" in a])
        print(f"aiconfigurator: median {np.median(taken):.1f} ms, mean {taken.mean():.1f} ms per configuration")


def batches() -> dict[str, dict[str, Any]]:
    """DeepSeek-R1 on B200: lengths and load that rise together, the same in no order, and all else varied, too."""
    cache = budget(*SETUP, tp=8).kv_tokens
    random = np.random.default_rng(0)
    osl, load_ = np.linspace(100, 1000, COUNT), np.linspace(1, 500, COUNT)
    sweep = {"tp": 8, "isl": 1000, "osl": osl, "load": load_, "kv_tokens": cache}
    mixed = {
        "tp": 2.0 ** random.integers(0, 4, COUNT),
        "dp": 2.0 ** random.integers(0, 4, COUNT),
        "isl": random.uniform(100, 8000, COUNT),
        "kv_tokens": cache * random.uniform(0.3, 1, COUNT),
    }
    shuffled = sweep | {"osl": random.permutation(osl), "load": random.permutation(load_)}
    return {"sweep": sweep, "shuffled": shuffled, "all varied": shuffled | mixed}


def per_second(columns: dict[str, Any], method: Method) -> float:
    """Of one core; the fastest of a few runs, as others may share the machine's caches."""
    taken = []
    for _ in range(REPEATS):
        started = time.process_time()
        predict_arrays(*SETUP, **columns, method=method)
        taken.append(time.process_time() - started)
    return COUNT / min(taken)


if __name__ == "__main__":
    main()

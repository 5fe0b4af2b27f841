"""Build the committed training table from a folder of published measurements (run once, by hand).

`python -m foundry_sim.train.collect <folder> <measurements.csv.gz>`. The sources, their licences and what each
reader assumes are in data/training/README.md.
"""

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from foundry_sim.train.measurement import Measurement, write
from foundry_sim.train.readers.common import Row
from foundry_sim.train.readers.inferencex import inferencex_amd, silicon
from foundry_sim.train.readers.studies import argonne, llm_pilot, splitwise, xeon
from foundry_sim.train.readers.vendors import gaudi, rocm, trtllm


def main(folder: Path, target: Path) -> int:
    rows = [m for name, reader in READERS.items() for m in reader(list(_open(folder / f"{name}.csv.gz")))]
    write(target, _speculating(originals(_unique(rows))))
    return 0


def _speculating(rows: list[Measurement]) -> list[Measurement]:
    """Mark unknown rows "mtp?" where the evidence is plain: their release and day provably ran with MTP only, or of
    two runs of one configuration and load theirs is faster by more than 8 %."""
    marks: dict[tuple[str, ...], set[str]] = defaultdict(set)
    points: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for m in rows:
        marks[_release(m)].add(m.spec)
        points[_point(m)].append(m.tpot_ms_mean or 0.0)

    def fast(m: Measurement) -> bool:
        return (m.tpot_ms_mean or 0.0) < 0.92 * max(points[_point(m)])

    def provable(m: Measurement) -> bool:
        return "mtp" in marks[_release(m)] and "" not in marks[_release(m)]

    return [replace(m, spec="mtp?") if m.spec == "unknown" and (provable(m) or fast(m)) else m for m in rows]


def _release(m: Measurement) -> tuple[str, ...]:
    return (m.model, m.device, m.engine, m.engine_version, m.date)


def _point(m: Measurement) -> tuple[object, ...]:
    return (*_release(m), m.weights, m.tp, m.dp, m.ep, m.isl, m.osl, m.load)


def _open(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", newline="") as stream:
        yield from csv.DictReader(stream)


def _unique(rows: list[Measurement]) -> list[Measurement]:
    """One of each identical measurement; DeepSeek V3 and R1 rows of one run are the same run."""
    seen: dict[tuple[object, ...], Measurement] = {}
    for row in rows:
        key = asdict(row)
        # A run that one source marks 'unknown' and another marks precisely keeps the precise mark.
        spec, version = key.pop("spec"), key.pop("engine_version")
        identity = tuple(key.values())
        known = seen.get(identity)
        if known is None or (known.spec == "unknown" and spec != "unknown") or (version and not known.engine_version):
            seen[identity] = row
    return list(seen.values())


def originals(rows: list[Measurement]) -> list[Measurement]:
    """Without the undated copies of dated runs."""
    dated = {_rounded(m) for m in rows if m.date}
    return [m for m in rows if m.date or m.ttft_ms_mean is None or _rounded(m) not in dated]


def _rounded(m: Measurement) -> tuple[object, ...]:
    return (m.model, m.device, m.engine, m.load, round(m.ttft_ms_mean or 0.0, 1), round(m.tpot_ms_mean or 0.0, 1))


def relabelled(reader: Callable[[list[Row]], Iterator[Measurement]]) -> Callable[[list[Row]], Iterator[Measurement]]:
    def read(rows: list[Row]) -> Iterator[Measurement]:
        for m in reader(rows):
            yield replace(m, model=_ALIASES.get(m.model, m.model))

    return read


_ALIASES = {
    "nvidia/Llama-3.1-70B-Instruct": "meta-llama/Llama-3.1-70B",
    "nvidia/Llama-3.3-70B-Instruct": "meta-llama/Llama-3.1-70B",
    "meta-llama/Meta-Llama-3-70B": "meta-llama/Llama-3.1-70B",
    "amd/Llama-3.1-70B-Instruct-FP8-KV": "meta-llama/Llama-3.1-70B",
    "nvidia/Llama-3.1-405B-Instruct": "meta-llama/Llama-3.1-405B",
    "amd/Llama-3.1-405B-Instruct-FP8-KV": "meta-llama/Llama-3.1-405B",
    "nvidia/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "meta-llama/Meta-Llama-3-8B": "meta-llama/Llama-3.1-8B",
    "nvidia/Llama-4-Maverick-17B-128E-Instruct": "meta-llama/Llama-4-Maverick-17B-128E-Instruct",
    "meta-llama/Llama-2-7b-hf": "meta-llama/Llama-2-7b",
    "meta-llama/Llama-2-70b-hf": "meta-llama/Llama-2-70b",
    "mistralai/Mistral-7B-v0.1": "mistralai/Mistral-7B",
    "mistralai/Mixtral-8x7B-v0.1": "mistralai/Mixtral-8x7B",
}

READERS: dict[str, Callable[[list[Row]], Iterator[Measurement]]] = {
    "silicon_dev": silicon,
    "inferencex_dsr1": inferencex_amd,
    "trtllm_perf_overview": relabelled(trtllm),
    "argonne_llm_inference_bench": relabelled(argonne),
    "splitwise_perf_model": relabelled(splitwise),
    "rocm_vllm_devdocker": relabelled(rocm),
    "intel_gaudi": relabelled(gaudi),
    "bud_cpu_xeon": xeon,
    "ibm_llm_pilot": llm_pilot,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

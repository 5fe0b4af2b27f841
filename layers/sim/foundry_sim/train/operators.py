"""Reduce measured GEMM tables to what a device family reaches of its data sheet (run once, by hand).

`python -m foundry_sim.train.operators <systems/data folder> <operators.json>` reads the tables of NVIDIA AIConfigurator
(Apache-2.0; parquet, so it needs pyarrow, which nothing else here does). The result is the prior of the physics fit,
and all that is known of families without an end-to-end measurement.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from foundry_sim.facts.devices import Device, device
from foundry_sim.physics.efficiency import Efficiency

# Their dtype → (ours, bytes per weight). Block-scaled FP8 of engines without a tuned kernel is left out.
_FORMATS = {"bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0), "nvfp4": ("nvfp4", 0.5625)}
_FOLDERS = {"rtx_pro_6000_server": "rtx_pro_6000"}
# Few-row GEMMs need hundreds of MB of weights before the launch no longer hides the bandwidth.
_LARGE, _FEW_ROWS, _MANY_WEIGHTS = 4096, 16, 1 << 28


def main(folder: Path, target: Path) -> int:
    reached: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for path in sorted(folder.glob("*/gemm/*/*/gemm_perf.parquet")):
        system = path.relative_to(folder).parts[0]
        try:
            _measure(path, device(_FOLDERS.get(system, system)), reached)
        except ValueError:
            continue  # a device that the catalogue does not know
    target.write_text(json.dumps(_factors(reached), indent=1, sort_keys=True) + "\n")
    return 0


def _measure(path: Path, target: Device, reached: dict[tuple[str, str, str], list[float]]) -> None:
    import pyarrow.parquet as parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    table = parquet.read_table(path, columns=["gemm_dtype", "m", "n", "k", "latency"]).to_pydict()
    compute: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    for name, m, n, k, latency_ms in zip(*table.values(), strict=True):
        if name not in _FORMATS or not latency_ms:
            continue
        ours, width = _FORMATS[name]
        seconds = float(latency_ms) / 1e3
        if min(m, n, k) >= _LARGE:
            compute[ours].append(2.0 * m * n * k / seconds / target.flops_for(ours))
        elif m <= _FEW_ROWS and n * k >= _MANY_WEIGHTS:
            memory[ours].append(n * k * width / seconds / target.memory_bandwidth_bytes_per_s)
    for kind, found in (("compute", compute), ("memory", memory)):
        for ours, values in found.items():
            reached[target.generation, kind, ours].append(median(values))


def _factors(reached: dict[tuple[str, str, str], list[float]]) -> dict[str, dict[str, float]]:
    """Best engine of each family, as factors on the defaults of Efficiency."""
    best = {key: max(values) for key, values in reached.items()}
    prior = Efficiency()
    found: dict[str, dict[str, float]] = {}
    for family in sorted({key[0] for key in best}):
        wide = {kind: best[family, kind, "bf16"] for kind in ("compute", "memory")}
        factors = {"linear": wide["compute"] / prior.linear, "memory": wide["memory"] / prior.memory}
        for ours, bits in (("fp8", "eight_bit"), ("nvfp4", "four_bit")):
            for kind, suffix in (("compute", ""), ("memory", "_memory")):
                if (family, kind, ours) in best:
                    share = best[family, kind, ours] / wide[kind]
                    factors[bits + suffix] = min(share, 1.0) / getattr(prior, bits + suffix)
        found[family] = {name: float(f"{value:.4g}") for name, value in factors.items()}
    return found


def prior(folder: Path) -> dict[str, Any]:
    """The committed factors."""
    value: dict[str, Any] = json.loads((folder / "operators.json").read_text())
    return value


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""Build the committed training table from a folder of published measurements (run once, by hand).

`python -m foundry_sim.train.collect <folder> <measurements.csv.gz>`. The sources, their licences and what each
reader assumes are in data/training/README.md.
"""

import csv
import gzip
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from foundry_sim.train.measurement import Measurement, write

Row = dict[str, str]
# InferenceX draws lengths uniformly from 0.8–1.0 × nominal.
_INFERENCEX_MEAN = 0.9


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


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _runs(rows: list[Row]) -> Iterator[tuple[Row, dict[str, float]]]:
    """Long format → (first row of the run, its metrics)."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["run_id"]].append(row)
    for run in grouped.values():
        yield run[0], {r["metric"]: float(r["value"]) for r in run if r["value"]}


# --- silicon_dev -----------------------------------------------------------------------------------------------


def silicon(rows: list[Row]) -> Iterator[Measurement]:
    for row in rows:
        if row["mode"] != "agg":
            continue
        tp, dp, ep = parallel(row)
        inferencex = row["origin"] in ("inferencex", _COPIES)
        scale = _INFERENCEX_MEAN if inferencex else 1.0
        batch = (_number(row["batch_size"]) or 1.0) * dp
        yield Measurement(
            source="silicon-inferencex" if inferencex else "silicon-nvidia",
            model=_deepseek(row["model_path"]),
            device=row["system"],
            engine=row["backend"],
            engine_version=row["backend_version"],
            date=row["date"],
            weights=_QUANTS.get(row["gemm_quant_mode"], "") or ("bf16" if row["precision"] == "bf16" else ""),
            moe=_QUANTS.get(row["moe_quant_mode"], ""),
            kv="fp8" if inferencex and (row["system"], row["backend"], row["model_path"]) == _FP8_CACHE else "",
            tp=tp,
            pp=int(float(row["pp_size"])),
            ep=ep,
            dp=dp,
            isl=float(row["isl"]) * scale,
            osl=float(row["osl"]) * scale,
            load=_number(row["conc"]) or batch,
            spec={"unknown (MTP possible)": "unknown", "mtp": "mtp"}.get(row["spec"], ""),
            ttft_ms_mean=float(row["ttft_mean_ms"]),
            tpot_ms_mean=float(row["tpot_mean_ms"]),
        )


# Undated copies of InferenceX runs, rounded to 10 µs and with nominal lengths.
_COPIES = "gap-csv"
# 46 of 64 long sequences ran at once on one GPU, exactly what an 8-bit cache holds and twice a 16-bit one.
_FP8_CACHE = ("h200_sxm", "vllm", "meta-llama/Llama-3.1-70B")
_QUANTS = {"fp8": "fp8", "fp8_block": "fp8", "nvfp4": "nvfp4", "int4_wo": "int4"}


def _deepseek(model: str) -> str:
    if "Qwen3-32B" in model:
        return "Qwen/Qwen3-32B"
    return "deepseek-ai/DeepSeek-R1" if "DeepSeek" in model else model


def parallel(row: Row) -> tuple[int, int, int]:
    """(tp, dp, ep) with the source's double counting undone (it multiplied TP or DP by EP)."""
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    tp, dp, moe_tp, ep = (max(1, int(_number(row[n]) or 1)) for n in names)
    if moe_tp == ep > 2 and tp * dp == ep * ep:
        return (ep, 1, ep) if tp > 1 else (1, ep, ep)
    if dp == tp > 1 and ep == tp * dp:
        return 1, tp, tp
    return tp, dp, ep


# --- long-format sources ---------------------------------------------------------------------------------------


def inferencex_amd(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        if row["mode"] != "agg":
            continue
        ranks = int(float(row["tp"]))
        attention = row["dp"] == "dp_attention"
        per_gpu = metrics.get("output_tok_s_per_gpu")
        yield Measurement(
            source="inferencex-amd",
            model="deepseek-ai/DeepSeek-R1",
            device=row["gpu"],
            engine=row["engine"],
            engine_version=row["engine_version"],
            date=row["date"],
            weights="mxfp4" if row["precision"] == "fp4" else "fp8",
            tp=1 if attention else ranks,
            dp=ranks if attention else 1,
            ep=int(float(row["ep"])),
            isl=float(row["isl"]) * _INFERENCEX_MEAN,
            osl=float(row["osl"]) * _INFERENCEX_MEAN,
            load=float(row["concurrency_or_rate"]),
            spec="mtp" if row["spec"] == "mtp" else "",
            output_tokens_per_s=per_gpu * float(row["n_gpus"]) if per_gpu else None,
            **_latencies(metrics),
        )


def _latencies(metrics: dict[str, float]) -> dict[str, Any]:
    names = [f"{n}_ms_{s}" for n in ("ttft", "tpot") for s in ("mean", "p50", "p99")]
    return {n: metrics.get(n) for n in names}


def trtllm(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        per_gpu = metrics.get("output_tok_s_per_gpu")
        total = metrics.get("output_tok_s") or (per_gpu * float(row["n_gpus"]) if per_gpu else None)
        kind, load = _trtllm_load(row)
        if kind == "open" and metrics.get("ttft_ms_mean") is None:
            continue
        if kind == "static" and total is None and "ttft_ms" not in metrics:
            continue
        yield Measurement(
            source="trtllm-perf",
            model=row["model"],
            device=_device(row["gpu"]),
            engine="trtllm",
            engine_version=re.sub(r"-cudagraph.*", "", row["engine_version"]),
            weights={"fp4": "nvfp4"}.get(row["precision"], row["precision"]),
            kv=row["kv_dtype"],
            tp=int(float(row["tp"])),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            kind=kind,
            load=load,
            ttft_ms_mean=metrics.get("ttft_ms") or metrics.get("ttft_ms_mean"),
            tpot_ms_mean=metrics.get("itl_ms_mean"),
            output_tokens_per_s=total,
        )


def _trtllm_load(row: Row) -> tuple[str, float]:
    text = row["concurrency_or_rate"]
    if row["mode"] == "offline" or text == "qps=INF":
        return "offline", 0.0
    if text.startswith("qps="):
        return "open", float(text[4:])
    return "static", float(text)


def _device(text: str) -> str:
    name = text.lower()
    for pattern, device in _DEVICES:
        if re.search(pattern, name):
            return device
    return ""


_DEVICES = (
    ("gh200", "gh200"),
    ("gb200", "gb200"),
    ("b200", "b200_sxm"),
    ("h200", "h200_sxm"),
    ("h100.*(nvl|pcie)|pcap", ""),
    ("h100", "h100_sxm"),
    ("a100-40|a100 pcie", ""),
    ("a100", "a100_sxm"),
    ("l40s", "l40s"),
    ("mi355", "mi355x"),
    ("mi325", "mi325x"),
    ("mi300x", "mi300x"),
    ("mi250", "mi250"),
    ("gaudi ?2", "gaudi2"),
    ("gaudi ?3", "gaudi3"),
    ("xeon.*6767", "xeon_6767p"),
)


def argonne(rows: list[Row]) -> Iterator[Measurement]:
    """Every fourth run: the grid is dense, and 2024 engines only anchor old releases and AMD, Gaudi and GH200."""
    for place, (row, metrics) in enumerate(_runs(rows)):
        if place % 4:
            continue
        device = _device(row["gpu"])
        plain = "KV Cache" not in row["notes"] and "Parallelism" not in row["notes"]
        if not device or not plain or not row["tp"] or "e2e_ms" not in metrics:
            continue
        yield Measurement(
            source="argonne",
            model=row["model"],
            device=device,
            engine={"TensorRT-LLM": "trtllm", "vLLM": "vllm"}.get(row["engine"], row["engine"].lower()),
            date="2024-07",
            weights="fp16",
            tp=int(float(row["tp"])),
            pp=int(float(row["pp"] or 1)),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            kind="static",
            load=float(row["concurrency_or_rate"]),
            e2e_ms_mean=metrics["e2e_ms"],
        )


def splitwise(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        if not _device(row["gpu"]) or "tpot_ms" not in metrics:
            continue
        yield Measurement(
            source="splitwise",
            model=row["model"],
            device=_device(row["gpu"]),
            engine="vllm",
            date="2023-10",
            weights="fp16",
            tp=int(float(row["tp"])),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            kind="static",
            load=float(row["concurrency_or_rate"]),
            ttft_ms_mean=metrics.get("ttft_ms"),
            tpot_ms_mean=metrics.get("tpot_ms"),
        )


def rocm(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        batch = _number(row["concurrency_or_rate"])
        if batch is None or "e2e_ms" not in metrics:
            continue
        yield Measurement(
            source="rocm-vllm",
            model=row["model"],
            device="mi300x",
            engine="vllm",
            engine_version=row["engine_version"].split(" ")[0],
            date=row["date"],
            weights="fp8",
            kv="fp8",
            tp=int(float(row["tp"])),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            kind="static",
            load=batch,
            e2e_ms_mean=metrics["e2e_ms"],
        )


def gaudi(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        batch = _number(row["concurrency_or_rate"])
        if "output_tok_s" not in metrics or not batch or not row["osl"]:
            continue
        yield Measurement(
            source="intel-gaudi",
            model=row["model"],
            device=_device(row["gpu"]),
            engine="optimum-habana",
            date="2024-10",
            weights="fp8",
            kv="fp8",
            tp=int(float(row["tp"])),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            kind="static",
            load=batch,
            output_tokens_per_s=metrics["output_tok_s"],
        )


def xeon(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        yield Measurement(
            source="bud-cpu",
            model=row["model"],
            device="xeon_6767p",
            engine="vllm",
            engine_version=row["engine_version"],
            weights="bf16",
            tp=int(float(row["tp"])),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            load=float(row["concurrency_or_rate"]),
            ttft_ms_mean=metrics.get("ttft_ms_mean"),
            tpot_ms_mean=metrics.get("tpot_ms_mean"),
            tpot_ms_p99=metrics.get("tpot_ms_p99"),
            output_tokens_per_s=metrics.get("output_tok_s"),
        )


def llm_pilot(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in _runs(rows):
        if row["gpu"] not in ("h100", "a100") or row["model"] not in ("llama-13b", "EleutherAI/gpt-neox-20b"):
            continue
        if re.search(r"errors=[1-9]", row["notes"]):
            continue
        yield Measurement(
            source="llm-pilot",
            model={"llama-13b": "meta-llama/Llama-2-13b"}.get(row["model"], row["model"]),
            device="h100_sxm" if row["gpu"] == "h100" else "a100_sxm",
            engine="tgi",
            date="2023-10",
            weights="fp16",
            tp=int(float(row["tp"])),
            isl=float(row["isl"]),
            osl=float(row["osl"]),
            load=float(row["concurrency_or_rate"]),
            tpot_ms_mean=metrics.get("itl_ms_mean"),
            tpot_ms_p50=metrics.get("itl_ms_p50"),
            output_tokens_per_s=metrics.get("output_tok_s"),
        )


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

"""What makers of engines and devices publish of their own: TensorRT-LLM, ROCm's vLLM, Gaudi."""

import re
from collections.abc import Iterator

from foundry_sim.train.measurement import Measurement
from foundry_sim.train.readers.common import Row, device_of, number, runs


def trtllm(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in runs(rows):
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
            device=device_of(row["gpu"]),
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


def rocm(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in runs(rows):
        batch = number(row["concurrency_or_rate"])
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
    for row, metrics in runs(rows):
        batch = number(row["concurrency_or_rate"])
        if "output_tok_s" not in metrics or not batch or not row["osl"]:
            continue
        yield Measurement(
            source="intel-gaudi",
            model=row["model"],
            device=device_of(row["gpu"]),
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

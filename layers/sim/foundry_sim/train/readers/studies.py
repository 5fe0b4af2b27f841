"""Studies by others: Argonne, Splitwise, LLM-Pilot, and BudEcosystem's runs on CPUs."""

import re
from collections.abc import Iterator

from foundry_sim.train.measurement import Measurement
from foundry_sim.train.readers.common import Row, device_of, runs


def argonne(rows: list[Row]) -> Iterator[Measurement]:
    """Every fourth run: the grid is dense, and 2024 engines only anchor old releases and AMD, Gaudi and GH200."""
    for place, (row, metrics) in enumerate(runs(rows)):
        if place % 4:
            continue
        device = device_of(row["gpu"])
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
    for row, metrics in runs(rows):
        if not device_of(row["gpu"]) or "tpot_ms" not in metrics:
            continue
        yield Measurement(
            source="splitwise",
            model=row["model"],
            device=device_of(row["gpu"]),
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


def xeon(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in runs(rows):
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
    for row, metrics in runs(rows):
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

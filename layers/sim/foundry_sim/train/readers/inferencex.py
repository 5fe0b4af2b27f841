"""InferenceX: what AIConfigurator's repository republishes of it, beside NVIDIA's own runs, and its runs on AMD."""

from collections.abc import Iterator
from typing import Any

from foundry_sim.train.measurement import Measurement
from foundry_sim.train.readers.common import Row, number, runs

# InferenceX draws lengths uniformly from 0.8–1.0 × nominal.
_INFERENCEX_MEAN = 0.9
# Undated copies of InferenceX runs, rounded to 10 µs and with nominal lengths.
_COPIES = "gap-csv"
# 46 of 64 long sequences ran at once on one GPU, exactly what an 8-bit cache holds and twice a 16-bit one.
_FP8_CACHE = ("h200_sxm", "vllm", "meta-llama/Llama-3.1-70B")
_QUANTS = {"fp8": "fp8", "fp8_block": "fp8", "nvfp4": "nvfp4", "int4_wo": "int4"}


def silicon(rows: list[Row]) -> Iterator[Measurement]:
    for row in rows:
        if row["mode"] != "agg":
            continue
        tp, dp, ep = parallel(row)
        inferencex = row["origin"] in ("inferencex", _COPIES)
        scale = _INFERENCEX_MEAN if inferencex else 1.0
        batch = (number(row["batch_size"]) or 1.0) * dp
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
            load=number(row["conc"]) or batch,
            spec={"unknown (MTP possible)": "unknown", "mtp": "mtp"}.get(row["spec"], ""),
            ttft_ms_mean=float(row["ttft_mean_ms"]),
            tpot_ms_mean=float(row["tpot_mean_ms"]),
        )


def _deepseek(model: str) -> str:
    if "Qwen3-32B" in model:
        return "Qwen/Qwen3-32B"
    return "deepseek-ai/DeepSeek-R1" if "DeepSeek" in model else model


def parallel(row: Row) -> tuple[int, int, int]:
    """(tp, dp, ep) with the source's double counting undone (it multiplied TP or DP by EP)."""
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    tp, dp, moe_tp, ep = (max(1, int(number(row[n]) or 1)) for n in names)
    if moe_tp == ep > 2 and tp * dp == ep * ep:
        return (ep, 1, ep) if tp > 1 else (1, ep, ep)
    if dp == tp > 1 and ep == tp * dp:
        return 1, tp, tp
    return tp, dp, ep


def inferencex_amd(rows: list[Row]) -> Iterator[Measurement]:
    for row, metrics in runs(rows):
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

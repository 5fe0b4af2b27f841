"""Runs inside the peer's environment: rows as JSON on stdin, its answers as JSON on stdout."""

import contextlib
import io
import json
import logging
import sys
import time
from typing import Any

# Names under which the peer bundles these configs; it would download others.
NAMES = {"meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B"}
MODES = {"fp8": "fp8", "nvfp4": "nvfp4", "bf16": "bfloat16", "int4": "int4_wo"}


def answer(row: dict[str, Any]) -> dict[str, Any]:
    from aiconfigurator.cli.api import cli_estimate  # type: ignore[import-not-found]

    world = row["tp"] * row["dp"]
    moe = {"moe_tp_size": world // row["ep"], "moe_ep_size": row["ep"]} if row["moe"] else {}
    quant = MODES.get(row["weights"])
    started = time.perf_counter()
    found = cli_estimate(
        NAMES.get(row["model"], row["model"]),
        row["device"],
        backend_name=row["engine"],
        isl=round(row["isl"]),
        osl=round(row["osl"]),
        batch_size=max(1, round(row["load"] / row["dp"])),
        tp_size=row["tp"],
        attention_dp_size=row["dp"],
        gemm_quant_mode=quant,
        moe_quant_mode=quant if row["moe"] else None,
        **moe,
    )
    return {"ttft_ms": found.ttft, "tpot_ms": found.tpot, "seconds": time.perf_counter() - started}


def main() -> None:
    logging.disable(logging.CRITICAL)
    answers = []
    for row in json.load(sys.stdin):
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                answers.append(answer(row))
            except BaseException as error:  # the peer exits the process on what it does not support
                answers.append({"error": f"{type(error).__name__}: {error}"[:200]})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

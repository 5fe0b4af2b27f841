"""Runs inside the peer's environment: rows as JSON on stdin, its answers as JSON on stdout, progress on stderr."""

import contextlib
import io
import json
import logging
import signal
import sys
import time
from functools import cache
from typing import Any

ROW_SECONDS = 60  # the first row of a device and engine loads tables, which takes most of half a minute

# Names under which the peer bundles these configs; it would download others.
NAMES = {"meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B"}
MODES = {"fp8": "fp8", "nvfp4": "nvfp4", "bf16": "bfloat16", "int4": "int4_wo"}


class Late(BaseException):
    """Not an Exception: the peer would catch that and go on."""


def late(*_: object) -> None:
    raise Late(f"no answer within {ROW_SECONDS} s")


@cache
def version(device: str, engine: str) -> str | None:
    """The peer parses all its YAML files for this, seconds for every call that names no version."""
    from aiconfigurator.sdk.perf_database import get_latest_database_version  # type: ignore[import-not-found]

    found: str | None = get_latest_database_version(system=device, backend=engine)
    return found


def answer(row: dict[str, Any]) -> dict[str, Any]:
    from aiconfigurator.cli.api import cli_estimate  # type: ignore[import-not-found]

    world = row["tp"] * row["dp"]
    moe = {"moe_tp_size": world // row["ep"], "moe_ep_size": row["ep"]} if row["moe"] else {}
    quant = MODES.get(row["weights"])
    release = version(row["device"], row["engine"])
    started = time.perf_counter()
    found = cli_estimate(
        NAMES.get(row["model"], row["model"]),
        row["device"],
        backend_name=row["engine"],
        backend_version=release,
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


def bounded(row: dict[str, Any]) -> dict[str, Any]:
    """The answer, or why there is none."""
    signal.alarm(ROW_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return answer(row)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the peer exits the process on what it does not support
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    finally:
        signal.alarm(0)


def main() -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, late)
    rows, answers = json.load(sys.stdin), []
    for count, row in enumerate(rows, start=1):
        answers.append(bounded(row))
        found = answers[-1].get("error") or f"{answers[-1]['seconds']:.1f} s"
        print(
            f"{count}/{len(rows)} {row['model']} {row['device']} {row['engine']}: {found}", file=sys.stderr, flush=True
        )
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

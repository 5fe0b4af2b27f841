"""What the extras of an endpoint cost, or save: the same load on the same gateway under one policy after the other.

As in the contest, only ratios within one run mean anything. The last line of the output is one JSON object with
requests and streams of 64 chunks per CPU second, by policy. The engines' chunks are numbers between two @, which is
hard on guardrails: nearly every chunk could be personal data.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import contestants as entry
from contest import bodies
from measure import Figures, Range, per_cpu

PII = {"id": "pii", "kind": "pii", "action": "redact"}
WORDS = {"id": "words", "kind": "deny", "patterns": [f"forbidden word {n}" for n in range(100)], "action": "block"}
TOKENS = 64
POLICIES: dict[str, dict[str, Any]] = {
    "none": {},
    "cache": {"cache_ttl_s": 3600},
    "coalesce_20_ms": {"coalesce_ms": 20},
    "guardrails": {"guardrails": [PII, WORDS]},
    "guardrails_coalesce_20_ms": {"guardrails": [PII, WORDS], "coalesce_ms": 20},
    "shadow_all": {},
}


def config(policy: str) -> dict[str, Any]:
    made: dict[str, Any] = entry.gateway_config()
    [endpoint] = made["endpoints"]
    endpoint["policy"] = {"routing": "least_outstanding", **POLICIES[policy]}
    if policy == "shadow_all":
        endpoint["tiers"][0][1].update({"shadow": True, "weight": 1})
    return made


def measure(policy: str, field: Range, paths: dict[str, Path], seconds: float) -> dict[str, Figures]:
    """Whole answers and streams under one policy; empty when the gateway does not start."""
    field.control_plane(config(policy))
    gateway = entry.foundry(field.work)
    try:
        if not gateway.start(field.work, "0"):
            return {}
        return {
            "chat": per_cpu(gateway, field, paths["chat"], seconds, "-c", "32"),
            "stream": per_cpu(gateway, field, paths["stream"], seconds, "-s", "-c", "32"),
        }
    finally:
        gateway.stop()
        field.end_control_plane()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    paths, field = bodies(options.work), Range(options.work, "1", TOKENS)
    found: dict[str, list[dict[str, Figures]]] = defaultdict(list)
    try:
        for number in range(options.rounds):
            for policy in POLICIES:
                figures = measure(policy, field, paths, options.seconds)
                print(f"round {number + 1}: {policy} {json.dumps(figures)}", flush=True)
                found[policy] += [figures] if figures else []
    finally:
        field.close()
    print(json.dumps({policy: summary(rounds) for policy, rounds in found.items()}))


def summary(rounds: list[dict[str, Figures]]) -> dict[str, float]:
    """Medians over the rounds."""
    return {
        "requests_per_cpu_s": round(statistics.median(figures["chat"]["per_cpu_s"] for figures in rounds)),
        "streams_per_cpu_s": round(statistics.median(figures["stream"]["per_cpu_s"] for figures in rounds)),
        "errors": sum(load["errors"] for figures in rounds for load in figures.values()),
    }


if __name__ == "__main__":
    main()

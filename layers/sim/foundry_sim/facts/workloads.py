"""Named workload classes for people who do not know their numbers: typical lengths and p95 service levels.

Lengths are rounded medians of published traces (ShareGPT and LMSYS-Chat-1M for chat, Azure 2023/2024 conversation and
code traces, RAG and agent papers); service levels follow MLPerf Inference 5.x interactive limits and common practice.
They are starting points that a request may override field by field.
"""

from dataclasses import dataclass

from foundry_sim.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class WorkloadClass:
    """Mean lengths in tokens; limits hold for the 95th percentile; None means: no limit."""

    name: str
    description: str
    input_tokens: int
    output_tokens: int
    ttft_ms: float | None
    tokens_per_second: float | None
    e2e_ms: float | None
    concurrency: int


CLASSES: dict[str, WorkloadClass] = {
    item.name: item
    for item in (
        WorkloadClass("chat", "people talking to an assistant", 1_000, 300, 1_000, 20, None, 32),
        WorkloadClass("rag", "answers from retrieved documents", 6_000, 300, 2_000, 20, None, 32),
        WorkloadClass("code_completion", "suggestions while typing", 2_000, 60, 300, 60, 1_500, 16),
        WorkloadClass("agentic", "long tool-using loops with growing context", 16_000, 600, 3_000, 40, None, 16),
        WorkloadClass("batch", "offline processing, throughput first", 2_000, 500, None, None, None, 256),
        WorkloadClass("embedding", "vectors for search", 512, 0, 500, None, None, 32),
    )
}


def workload_class(name: str) -> WorkloadClass:
    """The class of that name; ConfigurationError lists the known ones."""
    found = CLASSES.get(name.strip().lower().replace("-", "_").replace(" ", "_"))
    if found is None:
        raise ConfigurationError(f"workload class '{name[:40]}' is unknown; use one of {', '.join(CLASSES)}")
    return found

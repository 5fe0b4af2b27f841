"""How wrong the prediction was: predicted, measured, error, and where the measurements come from."""

import httpx
from foundry_core.money import format_usd

from foundry_cli.client import Api, ApiError, Json
from foundry_cli.output import console, show_table

_TITLES = {
    "ttft_ms": "TTFT, ms",
    "tpot_ms": "TPOT, ms",
    "output_tokens_per_s": "output tokens/s",
    "cost_nanos_per_million_output_tokens": "$ per 1M output tokens",
}


def of_deployment(api: Api, deployment: Json) -> Json | None:
    """Its accuracy report over the last day; None when it has never been ready, so that nothing can be compared."""
    try:
        return api.get(f"/projects/{deployment['project_id']}/metrics/deployments/{deployment['id']}/accuracy")
    except ApiError as error:
        if error.status == httpx.codes.NOT_FOUND:
            return None
        raise


def measured_by(report: Json, source: str) -> Json | None:
    """The part of an accuracy report (``GET …/deployments/{id}/accuracy``) that rests on one source."""
    return next((part for part in report["items"] if part["source"] == source), None)


def show_all(report: Json | None) -> None:
    """Predicted against measured, for each source of measurements."""
    if report is None:
        return
    for part in report["items"]:
        console.print()
        show(part)
    if not report["items"]:
        console.print("Nothing was measured in the last day.")


def show(part: Json) -> None:
    """Predicted against measured, with the note that says what the source is worth."""
    rows = (_row(line) for line in part["comparisons"])
    show_table(("METRIC", "STATISTIC", "PREDICTED", "MEASURED", "ERROR"), rows, "Nothing measured yet.")
    load = f", {part['concurrency']:.0f} at a time" if part["concurrency"] else ""
    console.print(f"{part['samples']:,} requests{load}, source: {part['source']}")
    if part["note"]:
        console.print(part["note"], style="dim")


def _row(line: Json) -> tuple[str, str, str, str, str]:
    error = line["error_percent"]
    predicted, measured = (_value(line["metric"], line[side]) for side in ("predicted", "measured"))
    return (
        _TITLES.get(line["metric"], str(line["metric"])),
        line["statistic"],
        predicted,
        measured,
        "–" if error is None else f"{error:+.1f} %",
    )


def _value(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return format_usd(round(value)) if metric.startswith("cost_nanos") else f"{value:,.1f}"

"""How a simulation's answer looks in a terminal: headline, winner, Pareto plot, plans, what binds, launch command."""

import re
from itertools import cycle
from typing import TYPE_CHECKING

from rich.text import Text

from foundry_cli.output import WIDTH, console, listed, show_table

if TYPE_CHECKING:
    from foundry_sim.search.plans import Plan, Predicted, Replay, SimulationRequest, SimulationResult, Spread

_PLOT_HEIGHT = 16
_MARKERS = ("●", "▲", "■", "◆", "✚", "✖", "★", "◉")


def show_result(request: "SimulationRequest", result: "SimulationResult") -> None:
    """Everything about one answer, at most 100 columns wide."""
    console.print(result.headline, style="bold")
    console.print(result.explanation)
    console.print(_asked(request), style="dim")
    best = result.plans[0] if result.plans else result.nearest.plan if result.nearest else None
    if best:
        console.print()
        _show_winner(best, "Plan" if result.plans else "Nearest plan", result.replay)
    if len(result.pareto) > 1:
        console.print()
        _plot(result)
    if result.plans:
        console.print()
        _show_plans(result.plans)
    if len({(plan.device_group, plan.engine) for plan in result.comparison}) > 1:
        console.print()
        _show_comparison(result.comparison)
    _show_fleets(result)
    _show_way_out(result)
    if best:
        console.print("\nLaunch", style="bold")
        console.print(command_lines(best.launch_command), soft_wrap=True)
    _show_notes(request, result)


def _asked(request: "SimulationRequest") -> str:
    """The workload and the levels, of which a class or the defaults may have given most."""
    work, levels = request.workload, request.service_levels
    load = f"{work.concurrency:,} users at once" if work.concurrency else f"{work.rate_per_s:g} requests/s"
    limits = [
        *([f"first token within {levels.ttft_ms:,g} ms"] if levels.ttft_ms else []),
        *([f"{levels.tokens_per_second:,g} tokens/s each"] if levels.tokens_per_second else []),
        *([f"whole answer within {levels.e2e_ms:,g} ms"] if levels.e2e_ms else []),
    ]
    kept = f"; {levels.statistic}: {', '.join(limits)}" if limits else ""
    return f"Asked: {work.input_tokens:,} tokens in, {work.output_tokens:,} out, {load}{kept}."


def command_lines(command: str) -> str:
    """A line per option, continued as shells have it: it can be copied whole."""
    return " \\\n  ".join(re.split(r" (?=--)", command))


def _show_winner(plan: "Plan", title: str, replay: "Replay | None") -> None:
    predicted, memory = plan.predicted, plan.memory
    gib = 2**30
    used = (memory.usable_bytes - memory.free_kv_bytes) / gib
    rows = [
        (title, f"{plan.replicas} × ({_layout(plan)}) on {plan.device_group} = {_devices(plan)}"),
        ("Engine", f"{plan.engine}, {plan.precision.label}. {plan.precision.quality_note}"),
        *_times(predicted),
        *(replayed(replay) if replay else ()),
        ("Memory", f"{used:.1f} of {memory.usable_bytes / gib:.1f} GiB per device before cache, "
                   f"room for {predicted.max_concurrency:,} requests at once"),
        ("Price", f"{_usd(plan.cost_nanos_per_hour)}/h, {_per_million(plan)} per 1M output tokens"),
    ]  # fmt: skip
    for name, text in rows:
        console.print(Text.assemble("  ", (f"{name:<13}", "bold"), text))


def _times(predicted: "Predicted") -> list[tuple[str, str]]:
    """Generation has a first token and a pace; models that return vectors have one time and input tokens only."""
    if not predicted.output_tokens_per_s:
        rate = f"{predicted.requests_per_s:,.2f} req/s, {predicted.input_tokens_per_s:,.0f} input tokens/s"
        return [("Latency", _spread(predicted.e2e_ms)), ("Throughput", rate)]
    pace = f"{_spread(predicted.tpot_ms)} → {predicted.tokens_per_s_per_user:.0f} tokens/s per user"
    rate = f"{predicted.output_tokens_per_s:,.0f} output tokens/s, {predicted.requests_per_s:,.2f} req/s"
    return [
        ("TTFT", _spread(predicted.ttft_ms)),
        ("TPOT", pace),
        ("E2E", _spread(predicted.e2e_ms)),
        ("Throughput", rate),
    ]


def replayed(replay: "Replay") -> list[tuple[str, str]]:
    """What the event scheduler adds: the gaps between tokens, and how many requests keep every level."""
    gaps, share = replay.itl_ms, replay.goodput_share
    itl = f"p50 {gaps.p50:,.1f}, p95 {gaps.p95:,.1f}, p99 {gaps.p99:,.1f} ms (event model)"
    kept = f"{share:.1%} of {replay.requests:,} replayed requests keep every level"
    return [
        *([("ITL", itl)] if gaps.mean else []),
        ("Goodput", f"{replay.goodput_requests_per_s:,.2f} req/s: {kept}"),
    ]


def _spread(spread: "Spread") -> str:
    return (
        f"{spread.mean:,.1f} ms mean ({spread.lo:,.0f}–{spread.hi:,.0f}), p95 {spread.p95:,.0f}, p99 {spread.p99:,.0f}"
    )


def _layout(plan: "Plan") -> str:
    degrees = [f"{name.upper()}{getattr(plan, name)}" for name in ("tp", "pp", "ep", "dp") if getattr(plan, name) > 1]
    share = f" {plan.device_share:.0%} of a device" if plan.device_share < 1 else ""
    return (" ".join(degrees) or "TP1") + share


def _devices(plan: "Plan") -> str:
    return "1 device" if plan.devices == 1 else f"{plan.devices} devices"


def _usd(nanos: int) -> str:
    return f"${nanos / 1e9:,.2f}"


def _per_million(plan: "Plan") -> str:
    nanos = plan.cost_nanos_per_million_output_tokens
    return "–" if nanos is None else _usd(nanos)


def _plot(result: "SimulationResult") -> None:
    """Tokens/s per device against tokens/s per user: the front over everything that fits."""
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    for group, marker in zip(sorted({point.device_group for point in result.pareto}), cycle(_MARKERS), strict=False):
        points = [point for point in result.pareto if point.device_group == group]
        signal = figure.signal(
            [point.tokens_per_s_per_user for point in points],
            [point.tokens_per_s_per_device for point in points],
            marker=marker,
        )
        signal.label(group)
        figure.draw(signal)
    figure.title("Pareto front")
    figure.label("tokens/s per user", "x")
    figure.label("tokens/s per device", "y")
    figure.plot_size(WIDTH - 4, _PLOT_HEIGHT)
    for line in plotext.uncolorize(str(figure.build())).splitlines():
        console.print(line.rstrip()[:WIDTH])


def _show_plans(plans: list["Plan"]) -> None:
    generates = plans[0].predicted.output_tokens_per_s > 0
    times = ("TTFT", "p95", "TPOT", "tok/s") if generates else ("LATENCY", "p95", "req/s")
    columns = ("#", "DEVICES", "ENGINE", "LAYOUT", *times, "$/hour", *(("$/1M",) if generates else ()))
    rows = (
        (
            number,
            f"{plan.devices} {plan.device_group}",
            f"{plan.engine} {plan.precision.label}",
            f"{plan.replicas}×{_layout(plan)}",
            *_numbers(plan.predicted, generates),
            _usd(plan.cost_nanos_per_hour),
            *((_per_million(plan),) if generates else ()),
        )
        for number, plan in enumerate(plans, 1)
    )
    show_table(columns, rows, "No plan meets the service levels.")


def _numbers(predicted: "Predicted", generates: bool) -> tuple[str, ...]:
    first = (f"{predicted.ttft_ms.mean:,.0f}", f"{predicted.ttft_ms.p95:,.0f}")
    if not generates:
        return (*first, f"{predicted.requests_per_s:,.1f}")
    return (*first, f"{predicted.tpot_ms.mean:.1f}", f"{predicted.output_tokens_per_s:,.0f}")


def _show_comparison(plans: list["Plan"]) -> None:
    """The best of each device group and engine, met or not."""
    columns = ("GROUP", "ENGINE", "LAYOUT", "MEETS", "TTFT", "TPOT", "tok/s/device", "$/hour")
    rows = (
        (
            plan.device_group,
            plan.engine,
            f"{plan.replicas}×{_layout(plan)}",
            "yes" if plan.meets_service_levels else f"no: {', '.join(plan.missed)}",
            f"{plan.predicted.ttft_ms.mean:,.0f}",
            f"{plan.predicted.tpot_ms.mean:.1f}" if plan.predicted.output_tokens_per_s else "–",
            f"{plan.predicted.tokens_per_s_per_device:,.0f}",
            _usd(plan.cost_nanos_per_hour),
        )
        for plan in plans
    )
    show_table(columns, rows, "")


def _show_fleets(result: "SimulationResult") -> None:
    if result.fleets:
        console.print("\nFleets", style="bold")
    for number, fleet in enumerate(result.fleets[:3], 1):
        parts = " + ".join(
            f"{part.plan.replicas} × ({_layout(part.plan)}) {part.plan.device_group}, "
            + (f"load {part.load:g}" if part.role == "serve" else part.role)
            for part in fleet.parts
        )
        console.print(f"{number}  {_usd(fleet.cost_nanos_per_hour)}/h: {parts}")


def _show_way_out(result: "SimulationResult") -> None:
    if result.binding_constraint == "throughput":
        console.print("\nNo looser service level helps: the load is more than this hardware carries.")
    elif result.nearest:
        levels = result.nearest.service_levels.model_dump(exclude_none=True, exclude={"statistic"})
        statistic = result.nearest.service_levels.statistic
        console.print(f"\nNearest service levels that this hardware meets ({statistic}): {listed(levels)}")
    for found in result.hardware:
        plan = found.plan
        console.print(
            f"Would meet it: {found.nodes} × {found.devices_per_node} {found.device}, "
            f"{plan.replicas} × ({_layout(plan)}) {plan.engine}, {_usd(plan.cost_nanos_per_hour)}/h"
        )


def _show_notes(request: "SimulationRequest", result: "SimulationResult") -> None:
    console.print()
    for warning in result.warnings:
        console.print(warning, style="dim")
    judged = "cautious bounds (inside the 90 % interval)" if request.confidence == "upper" else "expected values"
    console.print(
        f"{result.considered:,} configurations judged by {judged} in {result.elapsed_ms:,.0f} ms, "
        f"{result.feasible_count:,} meet the service levels.",
        style="dim",
    )

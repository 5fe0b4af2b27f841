"""`foundry simulate`: which plan meets the service levels at the lowest price; offline, or on a registered cluster."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_cli.context import AsJson, Project
from foundry_cli.errors import CliError
from foundry_cli.hardware import (
    EXAMPLE,
    adapters_of,
    blocked_configurations,
    device_groups,
    model_of,
    refuse_unknown,
    request_of,
)
from foundry_cli.output import sentence
from foundry_cli.sim import read_calibration

if TYPE_CHECKING:
    from foundry_sim.search.plans import SimulationRequest

_PLATFORM_PLANS = 20  # as many as a simulation of the platform keeps


class PurchaseName(StrEnum):
    on_demand = "on_demand"
    spot = "spot"
    owned = "owned"


class StatisticName(StrEnum):
    mean = "mean"
    p50 = "p50"
    p95 = "p95"
    p99 = "p99"


class MethodName(StrEnum):
    regressor = "regressor"
    heuristic = "heuristic"


def simulate(
    model: Annotated[str, typer.Option(help="Repo id, path of a config.json, or a registered model with --cluster.")],
    devices: Annotated[
        list[str] | None,
        typer.Option(help="DEVICE[:COUNT or :NODESxDEVICES][@USD per device and hour]; repeat, or use commas."),
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Ask the platform about this cluster instead.")] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            help="Class of work that gives lengths, users and p95 limits: chat, rag, code_completion, agentic, batch, "
            "embedding. Without one: 1024 tokens in, 256 out, 32 users."
        ),
    ] = None,
    input_tokens: Annotated[int | None, typer.Option(min=1, help="Mean input tokens of a request.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=0, help="Mean output tokens of a request.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Users that each wait for their answer.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second, instead of --concurrency.")] = None,
    ttft: Annotated[float | None, typer.Option(help="Time to first token at most, ms.")] = None,
    tps: Annotated[float | None, typer.Option(help="Tokens per second for each user at least.")] = None,
    e2e: Annotated[float | None, typer.Option(help="Whole answer at most, ms.")] = None,
    statistic: Annotated[
        StatisticName | None, typer.Option(help="What limits hold for. Default: mean; p95 of a class.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="vllm, sglang, trtllm; repeat. Default: all; on a cluster vllm and sglang.")
    ] = None,
    purchase: Annotated[PurchaseName, typer.Option(help="Which price counts.")] = PurchaseName.on_demand,
    quantised: Annotated[bool, typer.Option("--quantised", help="Also consider quantised weights.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="Slices of devices (HAMi) instead of whole ones.")] = False,
    mixed: Annotated[bool, typer.Option("--mixed", help="Also fleets that span several device groups.")] = False,
    replicas: Annotated[int | None, typer.Option(min=1, help="Exactly so many; default: as few as needed.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Longest request to admit, in tokens.")] = None,
    lora: Annotated[int, typer.Option(min=0, help="LoRA adapters that are held at once.")] = 0,
    lora_rank: Annotated[int, typer.Option(min=1, help="Their rank.")] = 16,
    block: Annotated[
        list[str] | None,
        typer.Option(help="A configuration to leave out, such as engine=vllm,device=l40s,tp=4,reason=TEXT; repeat."),
    ] = None,
    expected: Annotated[
        bool, typer.Option("--expected", help="Judge by expected values, not cautious bounds.")
    ] = False,
    method: Annotated[MethodName, typer.Option(help="Learned correction, or closed form.")] = MethodName.regressor,
    calibration: Annotated[
        Path | None, typer.Option(help="Your own measurements, as `foundry sim calibrate` keeps them; with --devices.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=50, help="How many plans to list.")] = 5,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Which plan meets the service levels, at what price?"""
    asked = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "concurrency": concurrency,
        "rate_per_s": rate,
    }
    levels = {
        "ttft_ms": ttft,
        "tokens_per_second": tps,
        "e2e_ms": e2e,
        "statistic": statistic.value if statistic else None,
    }
    shape = _shape(workload, asked, levels)
    options: dict[str, Any] = {
        "purchase": purchase.value,
        "quantisation": "allowed" if quantised else "as_shipped",
        "mode": "shared" if shared else "dedicated",
        "mixed": mixed,
        "confidence": "expected" if expected else "upper",
        "method": method.value,
        "max_plans": top,
        "replicas": replicas,
        "max_model_len": max_model_len,
        "lora": adapters_of(lora, lora_rank),
        "blocked": blocked_configurations(block or []),
        **({"engines": engine} if engine else {}),
    }
    if cluster:
        _refuse_offline_only(devices, mixed, top, calibration)
        return _on_platform(model, cluster, project, {**shape, **options}, as_json)
    refuse_unknown(engine or [])
    if calibration:
        options["calibration"] = [asdict(point) for point in read_calibration(calibration).points]
    request = request_of({"model": model_of(model), "device_groups": device_groups(devices or []), **shape, **options})
    _offline(request, as_json)


def _refuse_offline_only(devices: list[str] | None, mixed: bool, top: int, calibration: Path | None) -> None:
    """``CliError`` for what the platform's simulations do not know, instead of an answer to another question."""
    if devices:
        raise CliError("Give either --devices or --cluster: a cluster brings its own devices.", EXAMPLE)
    if mixed:
        raise CliError("--mixed works with --devices only: the platform deploys on one device group.", EXAMPLE)
    if calibration:
        raise CliError("--calibration works with --devices only: a project keeps its own on the platform.", EXAMPLE)
    if top > _PLATFORM_PLANS:
        raise CliError(f"--top is at most {_PLATFORM_PLANS} with --cluster.", f"--top {_PLATFORM_PLANS}")


def _shape(workload: str | None, asked: dict[str, Any], levels: dict[str, Any]) -> dict[str, Any]:
    """Workload and service levels: those of the named class, each overridden by what was given."""
    from foundry_sim.errors import SimulatorError
    from foundry_sim.facts.workloads import workload_class

    base: dict[str, Any] = {"input_tokens": 1024, "output_tokens": 256, "concurrency": 32}
    limits: dict[str, Any] = {"statistic": "mean"}
    if workload:
        try:
            kind = workload_class(workload)
        except SimulatorError as error:
            raise CliError(sentence(error)) from None
        base = {name: getattr(kind, name) for name in base}
        limits = {name: getattr(kind, name) for name in ("ttft_ms", "tokens_per_second", "e2e_ms")}
        limits["statistic"] = "p95"
    given = {name: value for name, value in asked.items() if value is not None}
    if "rate_per_s" in given and "concurrency" not in given:
        base.pop("concurrency")
    return {
        "workload": {**base, **given},
        "service_levels": {**limits, **{name: value for name, value in levels.items() if value is not None}},
    }


def _offline(request: "SimulationRequest", as_json: bool) -> None:
    from foundry_sim.errors import SimulatorError
    from foundry_sim.search.search import simulate as search

    try:
        result = search(request)
    except SimulatorError as error:
        raise CliError(sentence(error), "foundry simulate --help") from None
    from foundry_cli.output import show_json
    from foundry_cli.simulation import show_result

    if as_json:
        show_json(result.model_dump(mode="json"))
    else:
        show_result(request, result)
    if not result.feasible:
        raise typer.Exit(1)


def _on_platform(model: str, cluster: str, project: str | None, fields: dict[str, Any], as_json: bool) -> None:
    """The same question asked of a registered cluster; the plans stay on the platform, ready to deploy."""
    from foundry_cli import plans
    from foundry_cli.client import Api
    from foundry_cli.context import project_of
    from foundry_cli.output import show_json

    api = Api()
    project_id = project_of(api, project)["id"]
    chosen = api.get(f"/models/{api.find('/models', model, 'model', 'foundry models list')['id']}")
    where = api.get(f"/clusters/{api.find('/clusters', cluster, 'cluster', 'foundry clusters list')['id']}")
    request = {
        "model": {"id": chosen["id"], "name": chosen["name"], "config": chosen["config"]},
        "device_groups": plans.usable_groups(where),
        **{name: value for name, value in fields.items() if name != "mixed"},
    }
    simulation, priced = plans.simulate(api, project_id, request, quiet=as_json)
    if as_json:
        show_json({**simulation, "plans": priced})
    plans.require_plans(simulation, priced, quiet=as_json)
    if not as_json:
        plans.show_plans(priced)
        plans.show_replay(simulation["outcome"])

"""A plan from a client → what really is deployed: facts are recomputed, the launch command is built here.

The predicted times are taken over as the client's claim: they are compared with measurements later. The predicted
throughput decides the price of a token, so it is held to what the devices can do at most (decision 12).
"""

import shlex
from dataclasses import dataclass

from foundry_core.errors import Invalid
from foundry_core.money import ratio
from foundry_core.sizes import check_storable
from foundry_sim.errors import SimulatorError
from foundry_sim.facts import architecture as architectures
from foundry_sim.facts import devices
from foundry_sim.facts.devices import Device
from foundry_sim.facts.memory import EngineLimits, MemoryBudget, budget
from foundry_sim.facts.parallel import Span, layouts
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.weights import Layout
from foundry_sim.search import launch
from foundry_sim.search.plans import Plan, PlanMemory

from functions.cluster.errors import InsufficientCapacity
from functions.cluster.manifests import PORT
from functions.cluster.roofline import most_tokens_per_s
from functions.cluster.schemas import DeviceGroup, ModelFacts, Price

# Images of the engines, at the versions that the launch commands are written for.
IMAGES = {"vllm": "docker.io/vllm/vllm-openai:v0.11.0", "sglang": "docker.io/lmsysorg/sglang:v0.5.4"}
MAX_CONFIG_BYTES = 256 * 1024
MAX_PLAN_BYTES = 64 * 1024
_FASTEST = 1e9  # tokens/s
_SLOWEST = 1 / 3600
_SIMULATE_AGAIN = "Simulate again on the cluster as it is now, and deploy one of those plans."


@dataclass(frozen=True, slots=True)
class Checked:
    """A plan that can be deployed as it stands, with our own memory, costs and command in it."""

    plan: Plan
    command: list[str]
    price: Price


def check(plan: Plan, model: ModelFacts, group: DeviceGroup, served_name: str) -> Checked:
    """Raises ``Invalid`` with code ``plan_invalid``, ``plan_not_deployable``, ``plan_does_not_fit``, ``plan_outdated``
    or ``config_invalid``, and ``InsufficientCapacity`` for more devices than there are."""
    check_storable(model.config, what="config", max_bytes=MAX_CONFIG_BYTES)
    _check_numbers(plan)
    device = _device(plan, group)
    _check_devices(plan, group)
    found = _architecture(model)
    _check_task(found)
    _check_layout(plan, found, Span(device, group.nodes, group.devices_per_node))
    needed = _memory(plan, found, device)
    _check_throughput(plan, found, most_tokens_per_s(plan, found, device, needed.weight_bytes))
    cost = _device_price(plan, group, device) * plan.devices
    command = _command(plan, found, served_name)
    trusted = {
        "memory": PlanMemory(**{name: getattr(needed, name) for name in PlanMemory.model_fields}),
        "cost_nanos_per_hour": cost,
        "cost_nanos_per_million_output_tokens": _per_million(cost, plan),
        "launch_command": shlex.join(command),
    }
    return Checked(plan.model_copy(update=trusted), command, token_price(cost, plan))


def _check_numbers(plan: Plan) -> None:
    check_storable(plan.model_dump(), what="plan", max_bytes=MAX_PLAN_BYTES)
    predicted = plan.predicted
    if not (0 <= predicted.output_tokens_per_s <= _FASTEST and 0 <= predicted.input_tokens_per_s <= _FASTEST):
        raise Invalid("The plan's predicted throughput is out of range.", code="plan_invalid")


def _check_throughput(plan: Plan, found: architectures.Architecture, most: float) -> None:
    """Of the tokens that are paid for: none would make them free, too many nearly so."""
    predicted = plan.predicted
    claimed = predicted.input_tokens_per_s if found.task == "embed" else predicted.output_tokens_per_s
    if not _SLOWEST <= claimed <= most:
        detail = f"The plan predicts {claimed:,.0f} tokens/s; its devices make more than none and at most {most:,.0f}."
        raise Invalid(detail, code="plan_invalid", next_action=_SIMULATE_AGAIN)


def _per_million(cost_nanos_per_hour: int, plan: Plan) -> int | None:
    tokens_per_hour = round(plan.predicted.output_tokens_per_s * 3600)
    return ratio(cost_nanos_per_hour, 1_000_000, tokens_per_hour) if tokens_per_hour else None


def _device(plan: Plan, group: DeviceGroup) -> Device:
    if group.device is None:
        raise Invalid(f"Foundry does not know the devices of group {group.name} ({group.product}).",
                      code="plan_not_deployable")  # fmt: skip
    device = devices.find(plan.device)
    if device is None or device.name != group.device:
        raise Invalid(f"The plan is for {plan.device[:60]}, but group {group.name} has {group.device}.",
                      code="plan_outdated", next_action=_SIMULATE_AGAIN)  # fmt: skip
    return device


def _check_devices(plan: Plan, group: DeviceGroup) -> None:
    if plan.engine not in IMAGES:
        raise Invalid(f"Engine {plan.engine[:40]} cannot be deployed; {' and '.join(IMAGES)} can.",
                      code="plan_not_deployable", next_action="Simulate with these engines.")  # fmt: skip
    per_replica = plan.tp * plan.pp * plan.dp
    if min(plan.tp, plan.pp, plan.dp, plan.ep, plan.replicas) < 1 or plan.devices != per_replica * plan.replicas:
        raise Invalid("The plan's devices are not replicas × tp × pp × dp.", code="plan_invalid")
    if plan.devices > group.devices:
        raise InsufficientCapacity(f"The plan needs {plan.devices:,} devices; {group.name} has {group.devices:,}.",
                                   next_action="Add nodes, or choose a smaller plan.")  # fmt: skip
    if per_replica > group.devices_per_node:
        raise Invalid(
            f"A replica of {per_replica} devices spans nodes of {group.devices_per_node}: it cannot be deployed yet.",
            code="plan_not_deployable", next_action="Choose a plan whose replica fits one node.",
        )  # fmt: skip


def _check_task(found: architectures.Architecture) -> None:
    if found.task == "classify":
        raise Invalid("Models that classify cannot be deployed yet.", code="plan_not_deployable")


def _check_layout(plan: Plan, found: architectures.Architecture, span: Span) -> None:
    """The layout is one that a simulation can propose, and the length one that the model takes."""
    possible = layouts(found, span, _precision(plan), plan.engine)
    if (plan.tp, plan.pp, plan.ep, plan.dp) not in {(one.tp, one.pp, one.ep, one.dp) for one in possible}:
        raise Invalid(f"{found.name} cannot be split by tp={plan.tp}, pp={plan.pp}, ep={plan.ep}, dp={plan.dp}.",
                      code="plan_invalid", next_action=_SIMULATE_AGAIN)  # fmt: skip
    if not 1 <= plan.limits.max_model_len <= found.max_position:
        raise Invalid(f"max_model_len must be between 1 and {found.max_position:,}.", code="plan_invalid")


def _architecture(model: ModelFacts) -> architectures.Architecture:
    """Named by where the engine loads the weights from, since that is what goes on its command line."""
    try:
        return architectures.from_config(model.config, model.repository or model.name)
    except SimulatorError as error:
        raise Invalid(str(error), code="config_invalid", errors=[{"field": "model.config", "detail": str(error)}]
                      ) from error  # fmt: skip


def _memory(plan: Plan, found: architectures.Architecture, device: Device) -> MemoryBudget:
    limits = plan.limits
    try:
        needed = budget(
            found, device, _precision(plan), tp=plan.tp, pp=plan.pp, ep=plan.ep, dp=plan.dp,
            limits=_limits(plan), context_tokens=limits.max_model_len,
        )  # fmt: skip
    except SimulatorError as error:
        raise Invalid(str(error), code="plan_invalid", next_action=_SIMULATE_AGAIN) from error
    if not needed.fits:
        raise Invalid(f"The plan does not fit {device.name}: {needed.reason}.", code="plan_does_not_fit",
                      next_action=_SIMULATE_AGAIN)  # fmt: skip
    return needed


def _precision(plan: Plan) -> Precision:
    shown = plan.precision
    try:
        return Precision(shown.weights, shown.activations, shown.kv, shown.moe, shown.attention)
    except SimulatorError as error:
        raise Invalid(str(error), code="plan_invalid") from error


def _limits(plan: Plan) -> EngineLimits:
    limits = plan.limits
    return EngineLimits(
        max_num_seqs=limits.max_num_seqs, chunk_tokens=limits.chunk_tokens,
        memory_utilization=limits.memory_utilization, max_model_len=limits.max_model_len,
    )  # fmt: skip


def _launch(plan: Plan, found: architectures.Architecture) -> launch.Launch:
    return launch.Launch(
        architecture=found, engine=plan.engine, layout=Layout(plan.tp, plan.pp, plan.ep, plan.dp),
        precision=_precision(plan), limits=_limits(plan), max_model_len=plan.limits.max_model_len,
        quantise=_quantise(plan, found),
    )  # fmt: skip


def _quantise(plan: Plan, found: architectures.Architecture) -> str:
    """Engines make fp8 weights while loading; any other format needs a checkpoint in it, a model of its own."""
    if not launch.needs_checkpoint(found, _precision(plan)):
        return ""
    if plan.precision.weights != "fp8":
        raise Invalid(f"The plan needs {plan.precision.weights} weights; {found.name} has others.",
                      code="plan_not_deployable",
                      next_action="Register a checkpoint in that format as a model, and simulate that.")  # fmt: skip
    return "fp8"


def _command(plan: Plan, found: architectures.Architecture, served_name: str) -> list[str]:
    words = shlex.split(launch.command(_launch(plan, found)))
    return [*words, "--served-model-name", served_name, "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104


def _device_price(plan: Plan, group: DeviceGroup, device: Device) -> int:
    """The owner's price, else one of the bundled ones; a plan made with another price is outdated."""
    owner = group.price_nanos_per_hour
    allowed = {owner} if owner is not None else set(device.price_nanos_per_hour.values())
    if plan.price_nanos_per_device_hour not in allowed:
        raise Invalid("The plan was made with another price than this device group has.", code="plan_outdated",
                      next_action=_SIMULATE_AGAIN)  # fmt: skip
    return plan.price_nanos_per_device_hour


def token_price(cost_nanos_per_hour: int, plan: Plan) -> Price:
    """All cost on output tokens at the predicted throughput, which is how plans are compared; embeddings have none,
    so there it is on input tokens."""
    output = _per_token(cost_nanos_per_hour, plan.predicted.output_tokens_per_s)
    if output is not None:
        return Price(input_nanos_per_token=0, output_nanos_per_token=output)
    return Price(
        input_nanos_per_token=_per_token(cost_nanos_per_hour, plan.predicted.input_tokens_per_s) or 0,
        output_nanos_per_token=0,
    )


def _per_token(cost_nanos_per_hour: int, tokens_per_s: float) -> int | None:
    """At least one nano-USD, so that nothing that costs is free; None where no token comes in an hour."""
    tokens_per_hour = round(tokens_per_s * 3600)
    return max(min(cost_nanos_per_hour, 1), ratio(cost_nanos_per_hour, 1, tokens_per_hour)) if tokens_per_hour else None

"""The most tokens that the devices of a plan can make: what a claimed throughput is held to, since prices follow it."""

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import Device
from foundry_sim.search.plans import Plan


def most_tokens_per_s(plan: Plan, model: Architecture, device: Device, weight_bytes: int) -> float:
    """Of all replicas, at peak arithmetic; generated ones also at full memory bandwidth, since each step reads what it
    uses of the weights (``weight_bytes`` on one device) once for its whole batch."""
    flops = 2 * sum(block.active_parameters for block in model.blocks)
    arithmetic = plan.devices * device.flops_for(plan.precision.activations) / flops
    if model.task == "embed":
        return arithmetic
    used = weight_bytes * model.active_parameters / model.text_parameters
    batch = plan.replicas * plan.dp * plan.limits.max_num_seqs
    return min(arithmetic, batch * device.memory_bandwidth_bytes_per_s / used)

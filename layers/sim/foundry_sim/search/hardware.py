"""Which hardware outside a request would meet it."""

import numpy as np
from numpy.typing import NDArray

from foundry_sim.facts.architecture import Architecture
from foundry_sim.facts.devices import device
from foundry_sim.facts.parallel import Span, replicas_that_fit
from foundry_sim.search.assemble import plan
from foundry_sim.search.candidates import Candidates
from foundry_sim.search.plans import DeviceGroup, HardwareSuggestion, SimulationRequest
from foundry_sim.search.search import Table, evaluate, ranking

# What one would buy or rent today, a node at a time.
_CATALOGUE = ("l40s", "rtx_pro_6000", "a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "mi300x",
              "mi325x", "mi355x", "gaudi3")  # fmt: skip
_NODES = (1, 2, 4)
_SUGGESTIONS = 3


def suggestions(request: SimulationRequest, architecture: Architecture) -> list[HardwareSuggestion]:
    """The cheapest of the catalogue that would meet the request, on as few nodes as do: one, two or four of a type."""
    wider = _wider(request)
    table = evaluate(wider, architecture)
    if not table.parts:
        return []
    order = ranking(table)
    meeting = order[table.column("violation")[order] <= 0.0]
    needed = np.concatenate([_nodes_needed(rows) for rows, _ in table.parts])
    for nodes in _NODES:
        enough = meeting[needed[meeting] <= nodes]
        best = _best_of_each(request, table, enough, nodes)
        if best:
            return [_suggestion(wider, architecture, table, row, nodes) for row in best[:_SUGGESTIONS]]
    return []


def _wider(request: SimulationRequest) -> SimulationRequest:
    """One engine is enough to say whether hardware would do; vLLM runs on all of it."""
    engines = ["vllm"] if "vllm" in request.engines else request.engines[:1]
    groups = [
        DeviceGroup(name=name, device=name, nodes=max(_NODES), devices_per_node=device(name).devices_per_node)
        for name in _CATALOGUE
    ]
    update = {"device_groups": groups, "mode": "dedicated", "replicas": None, "engines": engines}
    return request.model_copy(update=update)


def _nodes_needed(rows: Candidates) -> NDArray[np.intp]:
    """Per row, the fewest nodes that hold its replicas."""
    kind, each = rows.block.span.device, rows.block.span.devices_per_node
    spans = [Span(kind, nodes, each) for nodes in _NODES]
    room = np.array([[replicas_that_fit(span, one.devices, one.tp) for span in spans] for one in rows.layouts])
    holds = room[rows.layout_index] >= rows.replicas[:, None]
    return np.asarray(np.where(holds, _NODES, np.iinfo(np.intp).max).min(axis=1), np.intp)


def _best_of_each(request: SimulationRequest, table: Table, rows: NDArray[np.intp], nodes: int) -> list[int]:
    """The first row of each device; one node of a device that is there already is no suggestion."""
    present = {device(group.device).name for group in request.device_groups} if nodes == 1 else set()
    names = np.concatenate([np.repeat(rows.block.group.name, len(rows)) for rows, _ in table.parts])
    _, first = np.unique(names[rows], return_index=True)
    return [int(rows[place]) for place in sorted(first.tolist()) if names[rows[place]] not in present]


def _suggestion(
    request: SimulationRequest, architecture: Architecture, table: Table, row: int, nodes: int
) -> HardwareSuggestion:
    rows, judged, place = table.where(row)
    group = rows.block.group
    found = plan(request, architecture, rows, judged, place)
    return HardwareSuggestion(device=group.device, nodes=nodes, devices_per_node=group.devices_per_node, plan=found)

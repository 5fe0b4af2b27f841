"""The cluster domain's step of ``recommend``: what there is to recommend."""

import json
from typing import Any

from foundry_core.tasks import Output, TaskContext

from functions.cluster.schemas import Cluster, ClusterStatus
from functions.cluster.services import clusters
from functions.cluster.tasks.base import tasks

MAX_CLUSTERS = 20
_MAX_BYTES = 40_000  # of all clusters: they travel through the flow, beside models
_FACTS = {"name", "device", "nodes", "devices_per_node", "price_nanos_per_hour"}


@tasks.task("list_clusters")
def list_clusters(context: TaskContext) -> Output:
    """Clusters whose nodes are known and current; the others are named with the reason."""
    found, following = clusters.page_of(100, None)
    kept: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for cluster in found:
        offered = _offered(cluster)
        reason = _reason(cluster, offered) or _no_room([*kept, offered])
        if reason:
            left_out.append({"name": cluster.name, "reason": reason})
        else:
            kept.append(offered)
    if following:
        left_out.append({"name": "others", "reason": f"More than {len(found)} clusters are registered."})
    return {"clusters": kept, "left_out": left_out, "detail": f"{len(kept)} of {len(found)} clusters"}


def _reason(cluster: Cluster, offered: dict[str, Any]) -> str | None:
    if cluster.status != ClusterStatus.READY:
        return f"It is {cluster.status}: what is known of its nodes may be out of date."
    if not offered["device_groups"]:
        return "It has no ready node with a device that Foundry knows."
    return None


def _no_room(clusters: list[dict[str, Any]]) -> str | None:
    if len(clusters) > MAX_CLUSTERS or len(json.dumps(clusters)) > _MAX_BYTES:
        return f"A run takes {MAX_CLUSTERS} clusters and {_MAX_BYTES:,} bytes of device groups at most."
    return None


def _offered(cluster: Cluster) -> dict[str, Any]:
    groups = [group.model_dump(include=_FACTS) for group in cluster.device_groups if group.device and group.nodes]
    return {"id": cluster.id, "name": cluster.name, "device_groups": groups}

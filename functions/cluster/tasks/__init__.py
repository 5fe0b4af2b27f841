"""Steps of the cluster and deployment flows. Each may run twice with the same input; names as in statemachines/."""

from functions.cluster.tasks import clusters, daily, deployments, outcomes, removal, sleep
from functions.cluster.tasks.base import tasks

__all__ = ["clusters", "daily", "deployments", "outcomes", "removal", "sleep", "tasks"]

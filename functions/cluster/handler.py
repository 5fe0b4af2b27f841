"""Lambda entry points of the cluster domain."""

from collections.abc import Mapping
from typing import Any

from foundry_core.consumer import consumer
from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.cluster.consumer import consume
from functions.cluster.routes import router

app = create_app("cluster", router)
api = api_handler(app, "cluster")
on_event = consumer(consume)


def task(payload: dict[str, Any], context: Any) -> Mapping[str, Any]:
    """Imported on the first call: the Kubernetes client costs the API function a second that it does not need."""
    from functions.cluster.tasks import tasks

    return tasks.handler(payload, context)

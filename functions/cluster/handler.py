"""Lambda entry points of the cluster domain."""

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.cluster.consumer import consume
from functions.cluster.routes import router

app = create_app("cluster", router)
api = api_handler(app, "cluster")


def task(payload: dict[str, Any], context: Any) -> Mapping[str, Any]:
    """Imported on the first call: the Kubernetes client costs the API function a second that it does not need."""
    from functions.cluster.tasks import tasks

    return tasks.handler(payload, context)


def on_event(event: dict[str, Any], context: Any) -> PartialItemFailureResponse:
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event=event, record_handler=consume, processor=processor, context=context)

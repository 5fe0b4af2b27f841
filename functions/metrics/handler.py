"""Lambda entry points of the metrics domain."""

from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.metrics.consumer import consume
from functions.metrics.loader import Failures, load
from functions.metrics.routes import router

app = create_app("metrics", router)
api = api_handler(app, "metrics")


def on_event(event: dict[str, Any], context: Any) -> PartialItemFailureResponse:
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event=event, record_handler=consume, processor=processor, context=context)


def loader(event: dict[str, Any], context: Any) -> Failures:
    return load(event)

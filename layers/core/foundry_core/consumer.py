"""Events of other domains as a Lambda handler: EventBridge's wrapping around our envelope, in SQS messages."""

import json
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from foundry_core.events import Event

Handler = Callable[[dict[str, Any], Any], PartialItemFailureResponse]


def consumer(consume: Callable[[Event], None]) -> Handler:
    """Each message by itself, delivered at least once and in any order; one that fails, or is malformed, is delivered
    again until it is parked."""

    def one(record: SQSRecord) -> None:
        consume(Event.model_validate(json.loads(record.body)["detail"]))

    def handler(event: dict[str, Any], context: Any) -> PartialItemFailureResponse:
        processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
        return process_partial_response(event=event, record_handler=one, processor=processor, context=context)

    return handler

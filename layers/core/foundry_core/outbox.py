"""The relay: DynamoDB streams of every table → the EventBridge bus, at least once, in shard order."""

import json
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord

from foundry_core.aws import client
from foundry_core.errors import TransientError
from foundry_core.events import OUTBOX
from foundry_core.settings import settings

logger = Logger(service="relay")
_processor = BatchProcessor(event_type=EventType.DynamoDBStreams)


def relay(event: dict[str, Any], context: Any) -> PartialItemFailureResponse:
    """Stream handler. A record that cannot be put is reported back and retried from there."""
    return process_partial_response(event=event, record_handler=_put, processor=_processor, context=context)


def _put(record: DynamoDBRecord) -> None:
    item = (record.dynamodb.new_image if record.dynamodb else None) or {}
    if record.event_name is None or record.event_name.name != "INSERT" or item.get("kind") != OUTBOX:
        return
    envelope = json.loads(item["event"])
    entry = {
        "EventBusName": settings().event_bus,
        "Source": envelope["source"],
        "DetailType": envelope["type"],
        "Detail": json.dumps(envelope),
    }
    answer = client("events").put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise TransientError(f"The bus refused event {envelope['id']}.")
    logger.info("relayed", extra={"event_id": envelope["id"], "type": envelope["type"]})

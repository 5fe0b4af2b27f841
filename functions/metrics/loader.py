"""S3 notifications out of SQS → rows in the warehouse. What fails is delivered again; that changes no number."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from foundry_core.logs import logger
from foundry_core.settings import settings

from functions.metrics import batches, warehouse
from functions.metrics.schemas import Row

_HOUR_S = 3600
Failures = dict[str, list[dict[str, str]]]


def load(event: dict[str, Any]) -> Failures:
    """Each message for itself; then the hours that any of them touched, once. Returns the messages to deliver again."""
    failed: list[str] = []
    loaded: list[str] = []
    touched: set[tuple[str, int]] = set()
    for message in event["Records"]:
        try:
            touched |= _load_message(message["body"])
            loaded.append(message["messageId"])
        except Exception:
            logger.exception("batch not loaded", extra={"message_id": message["messageId"]})
            failed.append(message["messageId"])
    try:
        warehouse.refresh(touched)
    except Exception:
        logger.exception("hours not refreshed")
        failed += loaded
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _load_message(body: str) -> set[tuple[str, int]]:
    touched: set[tuple[str, int]] = set()
    for key in _keys(json.loads(body)):
        batch = batches.read(key)
        if batch is None:
            logger.warning("batch is gone", extra={"key": key})
            continue
        warehouse.insert(batch.rows, batch.token)
        touched |= {hour_of(row) for row in batch.rows}
        logger.info("loaded", extra={"key": key, "rows": len(batch.rows), "bad_rows": len(batch.bad)})
    return touched


def _keys(notification: dict[str, Any]) -> Iterator[str]:
    """Keys of new metering objects; S3's test message has none."""
    for record in notification.get("Records", []):
        key = unquote_plus(record["s3"]["object"]["key"])
        if record["s3"]["bucket"]["name"] == settings().metering_bucket and key.startswith(batches.PREFIX):
            yield key


def hour_of(row: Row) -> tuple[str, int]:
    return row.project_id, row.ts_ms // 1000 // _HOUR_S * _HOUR_S

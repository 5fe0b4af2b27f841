"""At boot: uploads whose event a kill may have taken are announced again.

The emulator keeps an object at once, but its event in memory until a snapshot or the loader has it. A batch that is
loaded twice counts once.
"""

import json
import logging
import os
from typing import Any
from urllib.parse import quote_plus

import boto3

log = logging.getLogger(__name__)

# Longer than a snapshot may take: one that holds no event newer than its beginning is dated when it ends.
MARGIN_S = 60.0
_PREFIX = "metering/"


def announce_again(saved_at_s: float) -> list[str]:
    """Send the events of metering batches that came after, or shortly before, the snapshot of ``saved_at_s``.

    Returns their keys. Call it where the functions' variables are visible.
    """
    bucket = os.environ["METERING_BUCKET"]
    keys = _written_since(bucket, saved_at_s - MARGIN_S)
    if keys:
        queue = _queue_of(bucket)
        for key in keys:
            _announce(queue, bucket, key)
        log.info("%d uploads are announced again", len(keys))
    return keys


def _written_since(bucket: str, since_s: float) -> list[str]:
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_PREFIX)
    objects = [item for page in pages for item in page.get("Contents", [])]
    return [item["Key"] for item in objects if item["LastModified"].timestamp() >= since_s]


def _queue_of(bucket: str) -> str:
    """URL of the queue that hears of the bucket's objects."""
    heard: Any = boto3.client("s3").get_bucket_notification_configuration(Bucket=bucket)
    name = heard["QueueConfigurations"][0]["QueueArn"].rpartition(":")[2]
    return boto3.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]


def _announce(queue: str, bucket: str, key: str) -> None:
    record = {"s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}}
    boto3.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps({"Records": [record]}))

"""What a kill may have taken of the way from an upload to the loader, against bucket and queue on moto."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import unquote_plus

import pytest
from foundry_core import aws
from foundry_local.uploads import MARGIN_S, announce_again

BUCKET = "metering"
KEY = "metering/gw/a b+c.rows"


@pytest.fixture
def queue(aws_tables: None, monkeypatch: pytest.MonkeyPatch) -> str:
    url: str = aws.client("sqs").create_queue(QueueName="uploads")["QueueUrl"]
    names = ["QueueArn"]
    arn = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]["QueueArn"]
    heard = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    aws.client("s3").create_bucket(Bucket=BUCKET)
    for key in (KEY, "captures/other"):
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"rows")
    # Only now, so that the events of these two are lost.
    aws.client("s3").put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=heard)
    aws.client("sqs").purge_queue(QueueUrl=url)
    monkeypatch.setenv("METERING_BUCKET", BUCKET)
    return url


def written_at_s(after: timedelta) -> float:
    modified = aws.client("s3").head_object(Bucket=BUCKET, Key=KEY)["LastModified"]
    return float((modified + after).timestamp())


def heard(queue: str) -> list[Any]:
    messages = aws.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


@pytest.mark.parametrize("after_s", [-10.0, 0.0, MARGIN_S - 1])
def test_an_upload_that_no_snapshot_knows_for_certain_is_announced(queue: str, after_s: float) -> None:
    assert announce_again(written_at_s(timedelta(seconds=after_s))) == [KEY]
    [[record]] = [notification["Records"] for notification in heard(queue)]
    assert record["s3"]["bucket"]["name"] == BUCKET
    assert unquote_plus(record["s3"]["object"]["key"]) == KEY


def test_an_upload_long_before_the_snapshot_is_left_alone(queue: str) -> None:
    assert announce_again(written_at_s(timedelta(seconds=MARGIN_S + 2))) == []
    assert heard(queue) == []

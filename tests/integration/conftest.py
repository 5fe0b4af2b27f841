"""moto with the tables, the bus and the state machines' names that the functions expect."""

from collections.abc import Iterator
from types import SimpleNamespace

import boto3
import pytest
from foundry_core import aws
from foundry_core.settings import settings
from moto import mock_aws

DOMAINS = ("app", "model", "cluster", "sim", "metrics", "runs")


def create_table(domain: str) -> None:
    names = ("pk", "sk", "gsi1pk", "gsi1sk")
    boto3.client("dynamodb").create_table(
        TableName=f"foundry-test-{domain}",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "gsi1",
                "KeySchema": [
                    {"AttributeName": "gsi1pk", "KeyType": "HASH"},
                    {"AttributeName": "gsi1sk", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )


@pytest.fixture
def aws_tables() -> Iterator[None]:
    """All tables and the bus on moto, empty; clients and settings are forgotten afterwards."""
    with mock_aws():
        for domain in DOMAINS:
            create_table(domain)
        boto3.client("events").create_event_bus(Name="foundry-test")
        aws.client.cache_clear()
        settings.cache_clear()
        yield
        aws.client.cache_clear()
        settings.cache_clear()


@pytest.fixture
def lambda_context() -> SimpleNamespace:
    return SimpleNamespace(
        function_name="test",
        function_version="1",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:test",
        aws_request_id="request",
        get_remaining_time_in_millis=lambda: 30_000,
    )

"""boto3 clients, one per service and process: creating one costs milliseconds, keeping one keeps its connections."""

from functools import cache
from typing import Any

import boto3
from botocore.config import Config


@cache
def client(service: str, config: Config | None = None) -> Any:
    """A client of ``service``; honours ``AWS_ENDPOINT_URL``."""
    return boto3.client(service, config=config)  # type: ignore[call-overload]

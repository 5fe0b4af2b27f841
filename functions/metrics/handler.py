"""Lambda entry points of the metrics domain."""

from typing import Any

from foundry_core.consumer import consumer
from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.metrics.consumer import consume
from functions.metrics.loader import Failures, load
from functions.metrics.routes import router

app = create_app("metrics", router)
api = api_handler(app, "metrics")
on_event = consumer(consume)


def loader(event: dict[str, Any], context: Any) -> Failures:
    return load(event)

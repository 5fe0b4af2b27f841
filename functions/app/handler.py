"""Lambda entry points of the app domain."""

from typing import Any

from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.app.routes import routers
from functions.app.services.idle import ask
from functions.app.tasks import tasks

app = create_app("app", *routers)
api = api_handler(app, "app")
task = tasks.handler


def idle(event: dict[str, Any], context: Any) -> None:
    """The schedule's delivery."""
    ask()

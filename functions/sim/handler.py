"""Lambda entry points of the simulation domain."""

from typing import Any

from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.sim import platform_routes, recommendations, routes
from functions.sim.tasks import tasks

app = create_app("sim", routes.router, platform_routes.router)
api = api_handler(app, "sim")
task = tasks.handler


def daily(event: dict[str, Any], context: Any) -> None:
    """The schedule's delivery."""
    recommendations.start_for_today()

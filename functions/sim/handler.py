"""Lambda entry points of the simulation domain."""

from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.sim.routes import router
from functions.sim.tasks import tasks

app = create_app("sim", router)
api = api_handler(app, "sim")
task = tasks.handler

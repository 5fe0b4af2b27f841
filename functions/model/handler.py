"""Lambda entry points of the model domain."""

from foundry_core.http import create_app
from foundry_core.lambda_api import api_handler

from functions.model.routes import router
from functions.model.tasks import tasks

app = create_app("model", router)
api = api_handler(app, "model")
task = tasks.handler

"""The routes of the app domain, one module per resource."""

from functions.app.routes.batches import router as batches
from functions.app.routes.blocking import router as blocking
from functions.app.routes.control import router as control
from functions.app.routes.credentials import router as credentials
from functions.app.routes.files import router as files
from functions.app.routes.gateways import router as gateways
from functions.app.routes.keys import router as keys
from functions.app.routes.projects import router as projects
from functions.app.routes.runs import router as runs
from functions.app.routes.users import router as users

routers = (users, projects, keys, credentials, runs, gateways, blocking, control, files, batches)

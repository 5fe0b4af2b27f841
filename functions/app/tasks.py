"""Step Functions tasks of the app domain: endpoints appear and disappear with their deployment."""

from foundry_core.tasks import Output, TaskContext, Tasks

from functions.app.services import endpoints

tasks = Tasks("app")


@tasks.task("publish_endpoint")
def publish_endpoint(context: TaskContext) -> Output:
    """Reads what ``admit`` and ``wait_ready`` returned. ``NameTaken``."""
    endpoint = endpoints.publish(context.input["admit"]["output"], context.input["wait_ready"]["output"])
    return {"endpoint_id": endpoint.id}


@tasks.task("sleep_endpoint", undoes=("publish_endpoint",))
def sleep_endpoint(context: TaskContext) -> Output:
    endpoints.sleep(context.input["subject_id"])
    return {}


@tasks.task("unpublish_endpoint", undoes=("publish_endpoint",))
def unpublish_endpoint(context: TaskContext) -> Output:
    endpoints.unpublish(context.input["subject_id"])
    return {}

"""The steps of every flow, in order, with the titles people read. The ASL files use the same step names."""

from foundry_core.runs.models import Step

FLOWS: dict[str, dict[str, str]] = {
    "simulate": {
        "resolve_inputs": "Read model and clusters",
        "search": "Search configurations",
        "store_plans": "Store the plans",
    },
    "recommend": {
        "list_clusters": "Read the clusters",
        "list_models": "Read the models",
        "recommend": "Compare clusters for each model",
    },
    "register_cluster": {
        "connect": "Reach the Kubernetes API",
        "discover_nodes": "Discover nodes and GPUs",
        "install_addons": "Install add-ons",
        "addons_ready": "Wait for the add-ons",
        "mark_ready": "Open the cluster for deployments",
    },
    "deploy_model": {
        "admit": "Check capacity",
        "apply_manifests": "Apply manifests",
        "wait_ready": "Wait for the engines",
        "verify": "Ask the engine a question",
        "publish_endpoint": "Publish the endpoint",
        "mark_ready": "Open the deployment for traffic",
    },
    "delete_deployment": {
        "unpublish_endpoint": "Withdraw the endpoint",
        "drain": "Let open requests finish",
        "remove_manifests": "Remove manifests",
        "wait_removed": "Wait until the pods are gone",
        "mark_deleted": "Close the deployment",
    },
    "sleep_deployment": {
        "begin_sleep": "Check that nobody else is at work",
        "sleep_endpoint": "Tell the gateways",
        "drain": "Let open requests finish",
        "scale_down": "Scale to zero",
        "mark_asleep": "Give the GPUs back",
    },
    "wake_deployment": {
        "admit": "Check capacity",
        "apply_manifests": "Scale up",
        "wait_ready": "Wait for the engines",
        "verify": "Ask the engine a question",
        "publish_endpoint": "Tell the gateways",
        "mark_ready": "Open the deployment for traffic",
    },
}


def steps_of(kind: str) -> list[Step]:
    return [Step(name=name, title=title) for name, title in FLOWS[kind].items()]

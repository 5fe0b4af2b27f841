"""Errors of the cluster flows. State machines match them by class name."""

from foundry_core.errors import Conflict, FoundryError, Invalid, Unavailable

_RECONNECT = "Check that the API server is reachable from the control plane, then retry the run."


class KubeconfigInvalid(Invalid):
    default_code = "kubeconfig_invalid"


class ClusterUnreachable(Unavailable):
    default_code = "cluster_unreachable"

    def __init__(self, detail: str, *, next_action: str = _RECONNECT) -> None:
        super().__init__(detail, next_action=next_action)


class ManifestRejected(Invalid):
    """The Kubernetes API understood the manifest and refused it."""

    default_code = "manifest_rejected"


class AddonsFailed(FoundryError):
    default_code = "addons_failed"


class InsufficientCapacity(Conflict):
    default_code = "insufficient_capacity"


class Superseded(Conflict):
    """Another run has been asked for since, and works on the deployment."""

    default_code = "run_superseded"


class EngineFailed(FoundryError):
    default_code = "engine_failed"

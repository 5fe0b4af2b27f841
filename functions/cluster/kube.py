"""The Kubernetes API through the ``kubernetes`` client: server-side apply, bounded time, errors by kind.

Objects are plain dicts as the API writes them. Nothing is retried here: the state machines retry ``TransientError``.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3.exceptions as transport
from foundry_core.errors import TransientError
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_kube_config_from_dict

from functions.cluster.errors import ClusterUnreachable, KubeconfigInvalid, ManifestRejected
from functions.cluster.kubeconfig import Credentials

Obj = dict[str, Any]
FIELD_MANAGER = "foundry"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
_PAGE = 250
_MAX_PAGES = 200
_MAX_ANSWER_BYTES = 64 << 20
_NOT_KUBERNETES = "The server does not answer as a Kubernetes API."
_PLURALS = {
    "Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "Service": "services", "ConfigMap": "configmaps",
    "Deployment": "deployments", "Job": "jobs", "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies", "ClusterRoleBinding": "clusterrolebindings",
}  # fmt: skip
_BUSY = {429, 500, 502, 503, 504}


class Kube:
    """One API server. Raises ``ClusterUnreachable``, ``KubeconfigInvalid`` (401), ``ManifestRejected`` (other 4xx)
    and ``TransientError`` (429, 5xx, timeouts, resets)."""

    def __init__(self, credentials: Credentials) -> None:
        configuration = client.Configuration()
        try:
            load_kube_config_from_dict(credentials.config_dict(), client_configuration=configuration)
        except (ConfigException, ValueError) as error:
            raise KubeconfigInvalid("The kubeconfig cannot be used.") from error
        configuration.retries = False
        self._api = client.ApiClient(configuration)

    def version(self) -> str:
        found = self._call("GET", "/version").get("gitVersion")
        if not isinstance(found, str):
            raise ClusterUnreachable(_NOT_KUBERNETES)
        return found[:60]

    def get(self, path: str) -> Obj | None:
        """The object, or None when there is none."""
        try:
            found: Obj = self._call("GET", path)
        except _Absent:
            return None
        return found

    def items(self, path: str, labels: str = "") -> Iterator[Obj]:
        """Every object of a collection, page by page."""
        query: list[tuple[str, str]] = [("limit", str(_PAGE))]
        query += [("labelSelector", labels)] if labels else []
        following = ""
        for _ in range(_MAX_PAGES):
            answer = self._call("GET", path, query + ([("continue", following)] if following else []))
            yield from _objects(answer)
            following = (answer.get("metadata") or {}).get("continue", "")
            if not following:
                return
        raise ClusterUnreachable("The Kubernetes API lists without end.")

    def apply(self, manifest: Obj) -> Obj:
        """Server-side apply; fields that others own are taken over."""
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        try:
            applied: Obj = self._call("PATCH", path_of(manifest), query, manifest, "application/apply-patch+yaml")
        except _Absent as error:  # its namespace is gone
            raise ManifestRejected(f"{_label(manifest)}: {error}") from error
        return applied

    def delete(self, path: str, *, grace_s: int | None = None) -> None:
        """Delete the object and what it owns; no error when it is not there."""
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._call("DELETE", path, body=options)
        except _Absent:
            return

    @contextmanager
    def proxied(self, method: str, service: str, path: str, body: Obj | None, timeout_s: float) -> Iterator[Any]:
        """An open response of a service, reached through the API server (``service`` is its path with port)."""
        response = self._send(method, f"{service}/proxy{path}", [], body, "application/json", timeout_s)
        try:
            with _translated():
                yield response
        finally:
            response.release_conn()

    def _call(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: Obj | None = None,
        content_type: str = "application/json",
    ) -> Obj:
        response = self._send(method, path, query or [], body, content_type, READ_TIMEOUT_S)
        with _translated():
            content = response.read(_MAX_ANSWER_BYTES)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ClusterUnreachable(_NOT_KUBERNETES) from error
        if not isinstance(answer, dict):
            raise ClusterUnreachable(_NOT_KUBERNETES)
        return answer

    def _send(
        self, method: str, path: str, query: list[tuple[str, str]], body: Obj | None, content_type: str, read_s: float
    ) -> Any:
        with _translated():
            response = self._api.call_api(
                path, method, {}, query, {"Accept": "application/json", "Content-Type": content_type}, body=body,
                auth_settings=["BearerToken"], _preload_content=False, _request_timeout=(CONNECT_TIMEOUT_S, read_s),
            )  # fmt: skip
        return response


def version_of(credentials: Credentials) -> str:
    """Whether the cluster can be reached: tried once, without back-off, since a person waits for the answer.
    ``ClusterUnreachable``, ``KubeconfigInvalid``."""
    try:
        return Kube(credentials).version()
    except TransientError as error:
        raise ClusterUnreachable(error.detail) from error


def _objects(answer: Obj) -> list[Obj]:
    items = answer.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) and "metadata" in item for item in items):
        raise ClusterUnreachable(_NOT_KUBERNETES)
    return items


class _Absent(ManifestRejected):
    """404."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        raise _answered(error) from error
    except AttributeError as error:  # the client trips over its own report of a TLS failure, which has no body
        if not isinstance(error.__context__, ApiException):
            raise
        raise _untrusted() from error
    except (transport.NewConnectionError, transport.LocationValueError) as error:
        raise ClusterUnreachable(f"The Kubernetes API cannot be reached: {_reason(error)}.") from error
    except transport.TimeoutError as error:
        raise TransientError("The Kubernetes API did not answer in time.", code="cluster_timeout") from error
    except transport.HTTPError as error:
        raise TransientError("The connection to the Kubernetes API broke.", code="cluster_connection_lost") from error


def _untrusted() -> ClusterUnreachable:
    return ClusterUnreachable("The Kubernetes API cannot be reached: its certificate is not trusted.")


def _reason(error: Exception) -> str:
    if isinstance(error, transport.NameResolutionError):
        return "its name does not resolve"
    return "connection refused"


def _answered(error: ApiException) -> Exception:
    """The error that an answer of the API server means."""
    if not error.status:
        return _untrusted()
    if 300 <= error.status < 400:  # never followed: it would carry the credentials elsewhere
        return ClusterUnreachable(_NOT_KUBERNETES)
    message = _message(error)
    if error.status == 401:
        return KubeconfigInvalid("The cluster refused the credentials of the kubeconfig.",
                                 next_action="Send a kubeconfig with a valid token.")  # fmt: skip
    if error.status == 404:
        return _Absent(message)
    if error.status in _BUSY or "being terminated" in message:
        return TransientError(f"The Kubernetes API is busy: {message}", code="cluster_busy")
    return ManifestRejected(message)


def _message(error: ApiException) -> str:
    """One bounded line of what the API server said."""
    try:
        text = str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        text = str(error.reason or "no reason given")
    return " ".join(text.split())[:500]


def path_of(manifest: Obj) -> str:
    """The URL path of the object that a manifest describes."""
    group = manifest["apiVersion"]
    root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    metadata = manifest["metadata"]
    scope = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{scope}/{_PLURALS[manifest['kind']]}/{metadata['name']}"


def _label(manifest: Obj) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"

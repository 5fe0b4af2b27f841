"""Which domain answers which path (docs/architecture.md). API Gateway chooses the most specific route."""

# Never ANY: it would catch the preflights of browsers and ask them for a token.
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

ROUTES: dict[str, tuple[str, ...]] = {
    "app": ("/me", "/users", "/projects", "/runs", "/gateways", "/blocking-rules"),
    "model": ("/models",),
    "cluster": ("/clusters", "/projects/{project_id}/deployments"),
    "sim": ("/devices", "/simulator", "/projects/{project_id}/simulations", "/projects/{project_id}/simulator"),
    "metrics": ("/projects/{project_id}/metrics",),
}
LEAVES = frozenset({"/me"})  # nothing below these
GATEWAY = "/gateway/{proxy+}"  # gateways carry their own token; the app domain checks it
GATEWAY_METHODS = ("GET", "POST", "DELETE")


def paths(domain: str) -> list[str]:
    """Route paths of a domain: each resource, and everything below it."""
    below = [f"{path}/{{proxy+}}" for path in ROUTES[domain] if path not in LEAVES]
    return [*ROUTES[domain], *below]

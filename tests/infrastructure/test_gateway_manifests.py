"""The gateway's Kubernetes manifests and Dockerfile: complete, consistent with each other and with the settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway.settings import from_environment

FOLDER = Path(__file__).parents[2] / "gateway_container"
DOCKERFILE = (FOLDER / "Dockerfile").read_text().splitlines()
OBJECTS = [one for one in yaml.safe_load_all((FOLDER / "manifests/gateway.yaml").read_text()) if one]
NAME = {"app.kubernetes.io/name": "foundry-gateway"}


def the(kind: str) -> dict[str, Any]:
    [found] = [one for one in OBJECTS if one["kind"] == kind]
    return dict(found)


def pod() -> dict[str, Any]:
    return dict(the("Deployment")["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    [found] = pod()["containers"]
    return dict(found)


def settings_of_the_pod() -> dict[str, str]:
    image = dict(word.split("=", 1) for line in DOCKERFILE for word in line.split() if word.startswith("GATEWAY_"))
    own = {one["name"]: one.get("value", "pod-1") for one in container()["env"]}
    return image | the("ConfigMap")["data"] | own


def test_everything_is_there_once_and_in_one_namespace() -> None:
    kinds = [one["kind"] for one in OBJECTS]
    assert sorted(kinds) == sorted([
        "ConfigMap", "ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler",
        "NetworkPolicy",
    ])  # fmt: skip
    assert {(one["metadata"]["name"], one["metadata"]["namespace"]) for one in OBJECTS} == {
        ("foundry-gateway", "foundry")
    }


def test_every_selector_finds_the_pods() -> None:
    assert the("Deployment")["spec"]["template"]["metadata"]["labels"] == NAME
    assert the("Service")["spec"]["selector"] == NAME
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert the(kind)["spec"]["selector"] == {"matchLabels": NAME}
    assert the("NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": NAME}
    target = the("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", the("Deployment")["metadata"]["name"])


def test_the_pod_may_do_nothing_that_it_need_not() -> None:
    user = pod()["securityContext"]
    assert user["runAsNonRoot"] and user["runAsUser"] > 0 and user["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container()["securityContext"]
    assert own["readOnlyRootFilesystem"] and own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]} and pod()["automountServiceAccountToken"] is False
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in DOCKERFILE
    assert container()["resources"]["limits"]["memory"] and container()["resources"]["requests"]["cpu"]


def test_only_the_spool_is_writable_and_it_is_bounded() -> None:
    volumes = {one["name"]: one for one in pod()["volumes"]}
    writable = [one for one in container()["volumeMounts"] if not one.get("readOnly")]
    assert [one["mountPath"] for one in writable] == [settings_of_the_pod()["GATEWAY_SPOOL_DIR"]]
    assert volumes[writable[0]["name"]]["emptyDir"]["sizeLimit"]


def test_the_gateway_understands_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = settings_of_the_pod()
    mounted = [one["mountPath"] for one in container()["volumeMounts"] if one.get("readOnly")]
    assert any(variables["GATEWAY_TOKEN_FILE"].startswith(path + "/") for path in mounted)
    token = tmp_path / "token"
    token.write_text("secret")
    settings = from_environment(variables | {"GATEWAY_TOKEN_FILE": str(token)})
    assert settings.gateway_token == "secret" and settings.gateway_id == "pod-1" and settings.trusted_proxies
    known = {f"GATEWAY_{name.upper()}" for name in settings.__dataclass_fields__} | {"GATEWAY_TOKEN_FILE"}
    assert set(variables) <= known, "a misspelt setting has no effect"
    port = container()["ports"][0]
    assert port["containerPort"] == settings.port and the("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert {"port": settings.port} in the("NetworkPolicy")["spec"]["ingress"][0]["ports"]


def test_requests_end_before_the_pod_does() -> None:
    drain_s = float(settings_of_the_pod()["GATEWAY_DRAIN_S"])
    assert pod()["terminationGracePeriodSeconds"] >= drain_s + 15 and "preStop" in container()["lifecycle"]
    assert container()["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container()["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert the("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_one_pod_stays_and_more_come() -> None:
    scaler = the("HorizontalPodAutoscaler")["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert the("Deployment")["spec"]["replicas"] == scaler["minReplicas"]
    assert the("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policy = the("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = {(port.get("protocol", "TCP"), port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 8000), ("TCP", 4318)}


def test_the_image_ships_what_is_locked_and_no_more() -> None:
    final = DOCKERFILE[max(n for n, line in enumerate(DOCKERFILE) if line.startswith("FROM")) :]
    assert not any("pip install" in line or "apt-get" in line for line in final)
    installs = [line for line in DOCKERFILE if "pip install" in line]
    assert installs and all("--require-hashes" in line for line in installs)

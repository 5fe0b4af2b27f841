"""What a pod's container is told: its command, its environment, the engine it is, the probes that watch it."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry_local.kube.resources import CONFIG_MAPS, SECRETS
from foundry_local.kube.store import Store
from foundry_local.kube.types import Obj, annotations_of, dig, labels_of, name_of, namespace_of

ENGINE_LABEL = "foundry.dev/engine"
ARCHITECTURE_ANNOTATION = "foundry.dev/architecture"
ARCHITECTURE_CONFIG_MAP_ANNOTATION = "foundry.dev/architecture-configmap"
LOCAL_URL_ANNOTATION = "foundry.dev/local-url"
_ENGINE_IMAGES = re.compile(r"(^|/)(vllm/vllm-openai|vllm-openai|lmsysorg/sglang|sglang)(:|@|$)")
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class ConfigError(RuntimeError):
    """A container refers to a Secret or ConfigMap (key) that is not there."""


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """An HTTP probe in seconds, unscaled."""

    path: str
    port: int
    initial_delay_s: float
    period_s: float
    timeout_s: float
    failure_threshold: int
    success_threshold: int


def engine_container(pod: Obj) -> Obj | None:
    """The container that is an inference engine: by the label `foundry.dev/engine`, else by its image."""
    containers = pod["spec"]["containers"]
    if ENGINE_LABEL in labels_of(pod) or ENGINE_LABEL in annotations_of(pod):
        named = [item for item in containers if _ENGINE_IMAGES.search(item["image"]) or item["name"] == "engine"]
        return (named or containers)[0]  # type: ignore[no-any-return]
    return next((item for item in containers if _ENGINE_IMAGES.search(item["image"])), None)


def environment(store: Store, pod: Obj, container: Obj) -> dict[str, str]:
    """The container's environment with references to secrets and config maps resolved.

    Raises:
        ConfigError: a referenced object or key is missing and not optional.
    """
    values: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for kind, key in (("secretRef", "secret"), ("configMapRef", "configmap")):
            if reference := source.get(kind):
                data = _data(store, pod, key, reference)
                values |= {source.get("prefix", "") + name: value for name, value in data.items()}
    for entry in container.get("env") or []:
        value = _value(store, pod, entry)
        if value is not None:
            values[entry["name"]] = expand(value, values)
    return values


def _value(store: Store, pod: Obj, entry: Obj) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return str(entry.get("value", ""))
    if "fieldRef" in source:
        found = dig(pod, *str(source["fieldRef"].get("fieldPath", "")).split("."))
        return "" if found is None else str(found)
    for kind, key in (("secretKeyRef", "secret"), ("configMapKeyRef", "configmap")):
        if reference := source.get(kind):
            data = _data(store, pod, key, reference)
            if reference["key"] in data:
                return data[reference["key"]]
            if not reference.get("optional"):
                raise ConfigError(
                    f"couldn't find key {reference['key']} in {key} {namespace_of(pod)}/{reference['name']}"
                )
    return None


def _data(store: Store, pod: Obj, kind: str, reference: Obj) -> dict[str, str]:
    resource = SECRETS if kind == "secret" else CONFIG_MAPS
    found = store.peek(resource, namespace_of(pod), reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    data = found.get("data") or {}
    if kind == "configmap":
        return dict(data)
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}


def expand(text: str, values: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)` expansion; unknown names stay as they are."""
    return _REFERENCE.sub(lambda match: values.get(match[1], match[0]), text)


def command_line(container: Obj, values: Mapping[str, str]) -> list[str]:
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    return [expand(str(word), values) for word in words]


def architecture_of(store: Store, pod: Obj) -> str | dict[str, Any] | None:
    """The model's config.json from the pod's annotation or the config map that it names; None: by model name.

    Raises:
        ConfigError: the config map is missing, or the text is not JSON.
    """
    notes = annotations_of(pod)
    text = notes.get(ARCHITECTURE_ANNOTATION)
    if name := notes.get(ARCHITECTURE_CONFIG_MAP_ANNOTATION):
        text = _data(store, pod, "configmap", {"name": name}).get("config.json", "")
    if not text:
        return None
    if not text.lstrip().startswith("{"):
        return text
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ConfigError(f"the architecture of pod {name_of(pod)} is not JSON") from None
    return found or None


def missing_volumes(store: Store, pod: Obj) -> str | None:
    """The message of the first volume whose source does not exist."""
    for volume in pod["spec"].get("volumes") or []:
        for kind, resource, key in (("secret", SECRETS, "secretName"), ("configMap", CONFIG_MAPS, "name")):
            source = volume.get(kind)
            if not source or source.get("optional"):
                continue
            if store.peek(resource, namespace_of(pod), source[key]) is None:
                return (
                    f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind.lower()} "{source[key]}" not found'
                )
    return None


def http_probe(container: Obj, kind: str) -> HttpProbe | None:
    """The container's HTTP probe of this kind (`readinessProbe`, …); other probe types cannot be run here."""
    probe = container.get(kind)
    get = (probe or {}).get("httpGet")
    if not probe or not get:
        return None
    return HttpProbe(
        get.get("path") or "/",
        port_number(container, get["port"]),
        float(probe.get("initialDelaySeconds", 0)),
        float(probe.get("periodSeconds", 10)),
        float(probe.get("timeoutSeconds", 1)),
        int(probe.get("failureThreshold", 3)),
        int(probe.get("successThreshold", 1)),
    )


def port_number(container: Obj, port: int | str) -> int:
    """A port by number or by the name that the container gives it; 0 where there is none of that name."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    ports = container.get("ports") or []
    return next((int(item["containerPort"]) for item in ports if item.get("name") == port), 0)

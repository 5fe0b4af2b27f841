"""A simulated Kubernetes cluster: a real API over HTTP, controllers, a scheduler, and kubelets that start twin engines.

Annotations and labels that it reads or writes:

* `foundry.dev/local-url` on Pods and Services: the loopback URL at which they really answer (written; of a Service's
  first port, `foundry.dev/local-url.<port name or number>` for each of several). It survives a restart.
* `foundry.dev/engine` label or annotation on a Pod, or an image such as `vllm/vllm-openai`: the pod is an engine.
* `foundry.dev/architecture` annotation on a Pod: the model's config.json, or a name that the simulator knows;
  `foundry.dev/architecture-configmap`: the ConfigMap whose key `config.json` holds it. Without either, the model's
  own name is looked up.
* `foundry.dev/fault` annotation on a Pod: a fault for this pod alone, see `Fault`.
"""

from foundry_local.kube.cluster import SimulatedCluster
from foundry_local.kube.containers import (
    ARCHITECTURE_ANNOTATION,
    ARCHITECTURE_CONFIG_MAP_ANNOTATION,
    ENGINE_LABEL,
    LOCAL_URL_ANNOTATION,
)
from foundry_local.kube.faults import FAULT_ANNOTATION, Fault
from foundry_local.kube.nodes import demo_nodes
from foundry_local.kube.thread import ClusterThread

__all__ = [
    "ARCHITECTURE_ANNOTATION",
    "ARCHITECTURE_CONFIG_MAP_ANNOTATION",
    "ENGINE_LABEL",
    "FAULT_ANNOTATION",
    "LOCAL_URL_ANNOTATION",
    "ClusterThread",
    "Fault",
    "SimulatedCluster",
    "demo_nodes",
]

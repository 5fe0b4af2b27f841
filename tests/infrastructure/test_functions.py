"""Every function can be imported from what Lambda will have, gets the variables it needs, and fits."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from foundry_core.settings import Settings

from stacks.constructs.code import LAYERS, LOCKS, ROOT

FUNCTIONS = [
    "app-api", "app-task", "app-idle", "model-api", "model-task", "cluster-api", "cluster-task", "cluster-on-event",
    "sim-api", "sim-task", "sim-daily",
    "metrics-api", "metrics-on-event", "metrics-loader", "core-relay", "core-orphans",
]  # fmt: skip
ARNS = {"SIMULATE_ARN", "RECOMMEND_ARN", "REGISTER_CLUSTER_ARN", "DEPLOY_MODEL_ARN", "DELETE_DEPLOYMENT_ARN",
        "SLEEP_DEPLOYMENT_ARN", "WAKE_DEPLOYMENT_ARN"}  # fmt: skip
COMMON = {"STAGE", "POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE"}
ENVIRONMENT = {
    "app-api": {"APP_TABLE", "RUNS_TABLE", "USER_POOL_ID", "METERING_BUCKET", "SECRETS_KEY_ID"} | ARNS,
    "app-task": {"APP_TABLE", "RUNS_TABLE"},
    "app-idle": {"APP_TABLE"},
    "model-api": {"MODEL_TABLE", "APP_TABLE"},
    "model-task": {"MODEL_TABLE", "RUNS_TABLE"},
    "cluster-api": {"CLUSTER_TABLE", "APP_TABLE", "RUNS_TABLE", "SECRETS_KEY_ID"}
    | ARNS - {"SIMULATE_ARN", "RECOMMEND_ARN"},
    "cluster-task": {"CLUSTER_TABLE", "RUNS_TABLE", "SECRETS_KEY_ID"},
    "cluster-on-event": {"CLUSTER_TABLE", "RUNS_TABLE", "SLEEP_DEPLOYMENT_ARN", "WAKE_DEPLOYMENT_ARN"},
    "sim-api": {"SIM_TABLE", "APP_TABLE", "RUNS_TABLE", "SIMULATE_ARN", "RECOMMEND_ARN"},
    "sim-task": {"SIM_TABLE", "RUNS_TABLE"},
    "sim-daily": {"SIM_TABLE", "RUNS_TABLE", "RECOMMEND_ARN"},
    "metrics-api": {"METRICS_TABLE", "APP_TABLE", "CLICKHOUSE_DSN"},
    "metrics-on-event": {"METRICS_TABLE", "CLICKHOUSE_DSN"},
    "metrics-loader": {"METERING_BUCKET", "CLICKHOUSE_DSN"},
    "core-relay": {"EVENT_BUS"},
    "core-orphans": {"RUNS_TABLE"},
}  # fmt: skip
DOMAIN_LAYERS = {
    "app": ["base", "secrets"], "model": ["base", "sim"], "cluster": ["base", "sim", "kube"],
    "sim": ["base", "sim", "numerics"], "metrics": ["base", "metrics"], "core": ["base"],
}  # fmt: skip
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def properties(stacks: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = stacks.one("AWS::Lambda::Function", f"foundry-test-{name}").properties
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_handler_can_be_imported(stacks: Any, name: str) -> None:
    module, attribute = properties(stacks, name)["Handler"].rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gets_the_variables_it_needs_and_no_other(stacks: Any, name: str) -> None:
    variables = set(properties(stacks, name)["Environment"]["Variables"])
    numerics = {"OPENBLAS_NUM_THREADS"} if name.startswith("sim-") else set()
    assert variables == ENVIRONMENT[name] | COMMON | numerics
    known = {field.upper() for field in Settings.model_fields} | {f"{domain.upper()}_TABLE" for domain in DOMAIN_LAYERS}
    assert ENVIRONMENT[name] <= known | {"RUNS_TABLE"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_platform(stacks: Any, name: str) -> None:
    found = properties(stacks, name)
    assert (found["Runtime"], found["Architectures"]) == ("python3.13", ["arm64"])
    assert found["LoggingConfig"]["LogFormat"] == "JSON"
    assert found["Timeout"] <= (29 if name.endswith("-api") else 900)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_layers(stacks: Any, name: str) -> None:
    function = stacks.one("AWS::Lambda::Function", f"foundry-test-{name}")
    layers = {stacks.target(function.stack, layer).properties["Description"] for layer in function.properties["Layers"]}
    assert layers == {f"Foundry {layer}" for layer in DOMAIN_LAYERS[name.split("-")[0]]}


@pytest.mark.parametrize("domain", DOMAIN_LAYERS)
def test_all_that_a_domain_imports_is_in_its_layers(domain: str) -> None:
    """Imports run where only the layers' distributions can be found."""
    layers = [LAYERS[layer] for layer in DOMAIN_LAYERS[domain]]
    locks = "".join((LOCKS / layer.lock).read_text() for layer in layers if layer.lock)
    wanted = {
        "distributions": [name for name, _ in _PIN.findall(locks)],
        "packages": [Path(layer.package).name for layer in layers if layer.package] + ["functions"],
        "imports": sorted(_imports(domain)),
    }
    command = [sys.executable, str(Path(__file__).with_name("import_within.py")), json.dumps(wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _imports(domain: str) -> set[str]:
    """Modules of the domain, and what their import statements name, also those inside functions."""
    if domain == "core":
        return {"foundry_core.outbox"}
    found: set[str] = set()
    for path in (ROOT / "functions" / domain).rglob("*.py"):
        found.add(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    assert found, f"functions/{domain} is empty"
    return found


def test_layers_have_the_versions_that_the_tests_run_with() -> None:
    dev = dict(_PIN.findall((LOCKS / "dev.txt").read_text()))
    for name, layer in LAYERS.items():
        pins = dict(_PIN.findall((LOCKS / layer.lock).read_text())) if layer.lock else {}
        assert {one: dev.get(one) for one in pins} == pins, f"{name}: run `make lock`"


def test_predictions_need_numpy_alone() -> None:
    """What trains stays at home: with it the simulator's functions would be 82 MB larger, and start slower."""
    assert [name for name, _ in _PIN.findall((LOCKS / "layer-numerics.txt").read_text())] == ["numpy"]


def test_locks_carry_hashes_and_no_addresses() -> None:
    for lock in LOCKS.glob("layer-*.txt"):
        text = lock.read_text()
        assert text.count("==") <= text.count("--hash=sha256:")
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)


def test_api_functions_are_called_through_their_alias(stacks: Any) -> None:
    aliases = stacks.all("AWS::Lambda::Alias")
    assert sorted(stacks.text("api", alias.properties["FunctionName"]) for alias in aliases) == sorted(
        f"<foundry-test-{name}>" for name in FUNCTIONS if name.endswith("-api")
    )
    targets = {
        stacks.target("api", one.properties["IntegrationUri"]).type
        for one in stacks.all("AWS::ApiGatewayV2::Integration")
    }
    assert targets == {"AWS::Lambda::Alias"}

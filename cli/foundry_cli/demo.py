"""`foundry demo`: the main job on the local platform, each step with its result.

Every step first looks for what an earlier demo left, so that a second one is quick and makes nothing twice.
"""

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from foundry_core.money import format_usd
from foundry_local.state import Status
from rich.text import Text

from foundry_cli import accuracy, chat, load, plans, platform
from foundry_cli.client import Api, Json
from foundry_cli.deployments import create
from foundry_cli.errors import CliError
from foundry_cli.output import console
from foundry_cli.resources import read_file, show_groups
from foundry_cli.runs import follow

MODELS = ("llama-3.1-8b-instruct", "qwen3-30b-a3b", "deepseek-v2-lite")
PROJECT, CLUSTER, ENDPOINT = "demo", "demo-cluster", "llama-3-1-8b"
WORKLOAD = {"input_tokens": 1024, "output_tokens": 256, "concurrency": 64}
LEVELS = {"ttft_ms": 500.0, "tokens_per_second": 30.0}
_REQUESTS = 256
_METRICS_WAIT_S = 30.0
# About 1,024 input tokens. Each request begins differently: engines compute a prefix that they know only once.
_PROMPT = "Foundry answers before the spend. " * 126


@dataclass
class Demo:
    """What the steps hand on to one another."""

    status: Status
    api: Api
    started: float = field(default_factory=time.perf_counter)
    project: Json = field(default_factory=dict)
    model: Json = field(default_factory=dict)
    cluster: Json = field(default_factory=dict)
    simulation: Json = field(default_factory=dict)
    plan: Json = field(default_factory=dict)
    deployment: Json = field(default_factory=dict)
    key: str = ""
    load_began_ms: int = 0

    @property
    def path(self) -> str:
        return f"/projects/{self.project['id']}"

    def say(self, title: str) -> None:
        console.print(Text.assemble("\n", (title, "bold"), (f" ({time.perf_counter() - self.started:.0f} s)", "dim")))


def existing(api: Api, path: str, name: str) -> Json | None:
    return next((item for item in api.items(path) if item["name"] == name), None)


def register_models(demo: Demo) -> None:
    demo.say("1. Register models from their config.json")
    for file in MODELS:
        name = file.replace(".", "-").removesuffix("-instruct")
        model = existing(demo.api, "/models", name) or demo.api.post("/models", _model_body(name, file))
        active = f"{model['parameters'] / 1e9:.2f} B parameters, {model['active_parameters'] / 1e9:.2f} B active"
        per_token = model["kv_bytes_per_token"]["bf16"]
        console.print(f"  {model['name']:<18} {active}, {per_token / 1024:.1f} KiB of KV cache per token")
        if name == ENDPOINT:
            demo.model = demo.api.get(f"/models/{model['id']}")


def _model_body(name: str, file: str) -> Json:
    path = platform.root() / "examples" / "models" / f"{file}.json"
    return {"name": name, "config": json.loads(read_file(path))}


def register_cluster(demo: Demo) -> None:
    demo.say("2. Register the cluster by its kubeconfig")
    found = existing(demo.api, "/clusters", CLUSTER)
    if found is None or found["status"] == "failed":
        if found is not None:
            demo.api.delete(f"/clusters/{found['id']}")
        kubeconfig = read_file(Path(demo.status.kubeconfig or ""))
        accepted = demo.api.post("/clusters", {"name": CLUSTER, "kind": "onprem", "kubeconfig": kubeconfig})
        follow(demo.api, accepted["run"])
        found = accepted["cluster"]
    demo.cluster = demo.api.get(f"/clusters/{found['id']}")
    show_groups(demo.cluster)


def simulate(demo: Demo) -> None:
    demo.say("3. Simulate: 1,024 in, 256 out, 64 at a time, TTFT ≤ 500 ms, ≥ 30 tokens/s per user")
    request = {
        "model": {name: demo.model[name] for name in ("id", "name", "config")},
        "device_groups": plans.usable_groups(demo.cluster),
        "workload": WORKLOAD,
        "service_levels": LEVELS,
        "engines": ["vllm"],
    }
    demo.simulation, priced = plans.simulate(demo.api, demo.project["id"], request)
    plans.require_plans(demo.simulation, priced)
    plans.show_plans(priced[:5])
    demo.plan = priced[0]


def deploy(demo: Demo) -> None:
    price = format_usd(demo.plan["cost_nanos_per_hour"])
    demo.say(f"4. Deploy the best plan: {demo.plan['devices']} × {demo.plan['device']}, {price} an hour")
    found = existing(demo.api, f"{demo.path}/deployments", ENDPOINT)
    if found and found["status"] == "ready":
        demo.deployment = demo.api.get(f"{demo.path}/deployments/{found['id']}")
        console.print("  It runs already.")
        return
    if found:
        follow(demo.api, (demo.api.delete(f"{demo.path}/deployments/{found['id']}") or {})["run"])
    demo.deployment = create(
        demo.api, demo.project["id"], ENDPOINT, demo.cluster, demo.model, demo.plan, demo.simulation["id"]
    )


def ask(demo: Demo) -> None:
    demo.say("5. Make a key, stream one chat through the gateway, then a short load")
    demo.key = demo.api.post(f"{demo.path}/keys", {"name": f"demo-{int(time.time())}"})["secret"]
    url = (demo.status.gateway_url or "").removesuffix("/v1")
    _wait_until_served(url, demo.key)
    body = chat.body_of(ENDPOINT, "Say in one sentence what you are.", 32)
    for piece in chat.stream(url, demo.key, body):
        if isinstance(piece, str):
            console.print(piece, end="")
        else:
            console.print(
                f"\n  first token after {piece.ttft_ms:.0f} ms, then {piece.tpot_ms:.1f} ms per token", style="dim"
            )
    users, demo.load_began_ms = WORKLOAD["concurrency"], time.time_ns() // 1_000_000
    bodies = [
        chat.body_of(ENDPOINT, f"Request {number}: {_PROMPT}", WORKLOAD["output_tokens"]) for number in range(_REQUESTS)
    ]
    result = load.run(url, demo.key, bodies, users)
    console.print(
        f"  {len(result.answers)} requests by {users} users in {result.wall_s:.1f} s, {len(result.failures)} failed, "
        f"{result.output_tokens_per_s:,.0f} output tokens/s"
    )
    if result.failures:
        raise CliError(f"{len(result.failures)} requests failed: {result.failures[0]}.", "foundry status")


def _wait_until_served(url: str, key: str) -> None:
    """A new key and endpoint reach the gateway within two seconds; ask until they have."""
    deadline = time.monotonic() + 10
    while True:
        try:
            list(chat.stream(url, key, chat.body_of(ENDPOINT, "Hello", 1)))
            return
        except CliError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.25)


def compare(demo: Demo) -> None:
    demo.say("6. Predicted against measured")
    path = f"{demo.path}/metrics/deployments/{demo.deployment['id']}/accuracy"
    deadline = time.monotonic() + _METRICS_WAIT_S
    while True:
        measured = accuracy.measured_by(demo.api.get(path, from_ms=demo.load_began_ms), "twin")
        metered = measured["samples"] if measured else 0
        if measured and metered >= _REQUESTS:
            return accuracy.show(measured)
        if time.monotonic() > deadline:
            raise CliError(f"Only {metered} of {_REQUESTS} requests were metered.", "foundry status")
        time.sleep(0.5)


STEPS = (register_models, register_cluster, simulate, deploy, ask, compare)


def demo(
    exit: Annotated[bool, typer.Option("--exit", help="Stop the platform after the report.")] = False,
    port: platform.Port = None,
) -> None:
    """Run the main job: register, simulate, deploy, chat, load, compare. Exit status 0 only when every step passed."""
    console.print("0. Start the local platform", style="bold")
    status = platform.start(port)
    run = Demo(status, Api())
    run.project = existing(run.api, "/projects", PROJECT) or run.api.post("/projects", {"name": PROJECT})
    try:
        for step in STEPS:
            step(run)
        _farewell(run, stays=not exit)
    finally:
        if exit:
            platform.down()
    if not exit:
        _until_interrupted()


def _farewell(demo: Demo, stays: bool) -> None:
    console.print(f"\nEvery step passed in {time.perf_counter() - demo.started:.0f} s.", style="green")
    if not stays:
        return
    platform.show_status(demo.status)
    console.print(f"  export FOUNDRY_API_KEY={demo.key}", soft_wrap=True)
    console.print(f'  .venv/bin/foundry chat {ENDPOINT} "Hello"')
    console.print("Ctrl-C stops the platform; its state stays.")


def _until_interrupted(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        platform.down()

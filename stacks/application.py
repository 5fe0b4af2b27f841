"""Which stacks there are, in what order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk

from stacks.alarms import AlarmsStack
from stacks.api import ApiStack
from stacks.config import FLAGS, from_context
from stacks.constructs.checks import check
from stacks.data import DataStack
from stacks.events import EventsStack
from stacks.gateway import GatewayStack
from stacks.identity import IdentityStack
from stacks.metrics import MetricsStack
from stacks.workflows import WorkflowsStack


@dataclass(frozen=True)
class Application:
    app: cdk.App
    data: DataStack
    identity: IdentityStack
    events: EventsStack
    workflows: WorkflowsStack
    metrics: MetricsStack
    api: ApiStack
    gateway: GatewayStack


def build(outdir: str | None = None, context: Mapping[str, Any] | None = None) -> Application:
    app = cdk.App(outdir=outdir, context={**FLAGS, **(context or {})})
    config = from_context(app.node)
    data = DataStack(app, config)
    identity = IdentityStack(app, config)
    events = EventsStack(app, config, data)
    workflows = WorkflowsStack(app, config, data, events)
    metrics = MetricsStack(app, config, data, events)
    api = ApiStack(app, config, data=data, identity=identity, workflows=workflows, metrics=metrics)
    gateway = GatewayStack(app, config)
    if config.alarm_email:
        AlarmsStack(app, config, events=events, workflows=workflows, metrics=metrics, api=api)
    check(app)
    return Application(app, data, identity, events, workflows, metrics, api, gateway)

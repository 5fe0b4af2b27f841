"""The task functions and the state machines that call them."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.config import Config
from stacks.constructs.checks import accept
from stacks.constructs.flow import Flow
from stacks.constructs.function import DomainFunction
from stacks.constructs.queue import consume, dead_letter_queue, subscribe
from stacks.constructs.stack import FoundryStack
from stacks.data import DataStack
from stacks.events import EventsStack

FLOWS = (
    "simulate",
    "recommend",
    "register_cluster",
    "deploy_model",
    "delete_deployment",
    "sleep_deployment",
    "wake_deployment",
)
_DAILY_HOUR, _DAILY_MINUTE = "4", "17"  # UTC
_IDLE_MINUTES = 15


class WorkflowsStack(FoundryStack):
    def __init__(self, scope: Construct, config: Config, data: DataStack, events_: EventsStack) -> None:
        super().__init__(scope, "workflows", config)
        self.app = self._task("app", data, timeout_s=60, layers=("secrets",))
        self.model = self._task("model", data, timeout_s=60, layers=("sim",))
        self.sim = self._task("sim", data, timeout_s=900, memory_mib=3008, layers=("sim", "numerics"))
        self.cluster = self._task("cluster", data, timeout_s=300, memory_mib=1024, layers=("sim", "kube"))
        self.cluster.use_secrets(data.key)
        functions: Mapping[str, lambda_.IFunction] = {
            "AppTaskArn": self.app.function,
            "ModelTaskArn": self.model.function,
            "SimTaskArn": self.sim.function,
            "ClusterTaskArn": self.cluster.function,
        }
        self.flows = {kind: Flow(self, kind, config=config, functions=functions) for kind in FLOWS}
        self._close_orphans(data)
        self._recommend_daily(data)
        self._find_idle(data)
        self._wake(data, events_)

    def _close_orphans(self, data: DataStack) -> None:
        """An execution that ended without closing its run is reported on the account's default bus."""
        self.orphans = DomainFunction(
            self, "core", "orphans", config=self.config, timeout_s=30, memory_mib=256,
            handler="foundry_core.runs.orphans.close", code=lambda_.Code.from_inline("# It is in the base layer."),
        )  # fmt: skip
        self.orphans.use_table("runs", data.tables["runs"])
        self.dead = dead_letter_queue(self, "OrphansDead", name=self.config.name("orphans-dlq"))
        accept(self.dead, "SQS3", "It is the dead-letter queue, of an event rule and of the function behind it.")
        # The rule's queue gets what could not be delivered, the function's what it failed at three times.
        self.orphans.function.configure_async_invoke(on_failure=destinations.SqsDestination(self.dead))
        machines = [flow.machine.state_machine_arn for flow in self.flows.values()]
        events.Rule(
            self, "Ended", rule_name=self.config.name("executions-ended"),
            event_pattern=events.EventPattern(
                source=["aws.states"], detail_type=["Step Functions Execution Status Change"],
                detail={"status": ["FAILED", "TIMED_OUT", "ABORTED"], "stateMachineArn": machines},
            ),
            targets=[targets.LambdaFunction(self.orphans.function, dead_letter_queue=self.dead)],
        )  # fmt: skip

    def _recommend_daily(self, data: DataStack) -> None:
        """Once a day, at an hour when few people work; a function starts the flow, since a run has to be written."""
        self.daily = DomainFunction(
            self, "sim", "daily", config=self.config, timeout_s=60, memory_mib=512, layers=("sim", "numerics")
        )
        for name in ("sim", "runs"):
            self.daily.use_table(name, data.tables[name])
        self.daily.start(self.flows["recommend"])
        once_a_day = events.Schedule.cron(minute=_DAILY_MINUTE, hour=_DAILY_HOUR)
        self.undelivered = self._schedule("daily", self.daily, once_a_day)

    def _find_idle(self, data: DataStack) -> None:
        """What may sleep is asked about; who asks reads one table and, where nothing may sleep, writes nothing."""
        self.idle = DomainFunction(self, "app", "idle", config=self.config, timeout_s=60, layers=("secrets",))
        self.idle.use_table("app", data.tables["app"])
        often = events.Schedule.rate(cdk.Duration.minutes(_IDLE_MINUTES))
        self.unasked = self._schedule("idle", self.idle, often)

    def _schedule(self, name: str, function: DomainFunction, schedule: events.Schedule) -> sqs.Queue:
        """Returns the queue of what could not be delivered, or failed three times."""
        dead = dead_letter_queue(self, f"{name.title()}Dead", name=self.config.name(f"{name}-dlq"))
        accept(dead, "SQS3", "It is the dead-letter queue, of a schedule and of the function behind it.")
        function.function.configure_async_invoke(on_failure=destinations.SqsDestination(dead))
        events.Rule(
            self, name.title(), rule_name=self.config.name(name), schedule=schedule,
            targets=[targets.LambdaFunction(function.function, dead_letter_queue=dead)],
        )  # fmt: skip
        return dead

    def _wake(self, data: DataStack, events_: EventsStack) -> None:
        """An order of a gateway, or an idle deployment, starts a flow. The timeout is short: an order that comes while
        the deployment is going to sleep is delivered again after six times as long."""
        self.on_event = DomainFunction(
            self, "cluster", "on_event", config=self.config, timeout_s=10, memory_mib=512, layers=("sim", "kube")
        )
        for name in ("cluster", "runs"):
            self.on_event.use_table(name, data.tables[name])
        for kind in ("wake_deployment", "sleep_deployment"):
            self.on_event.start(self.flows[kind])
        self.wakes = consume(self, self.on_event, batch_size=10)
        wanted = ("foundry.deployment.wake_wanted.", "foundry.deployment.idle.")
        subscribe(self, "cluster-on-event", events_.bus, wanted, self.wakes)

    def _task(
        self, domain: str, data: DataStack, *, timeout_s: int, memory_mib: int = 512, layers: tuple[str, ...] = ()
    ) -> DomainFunction:
        function = DomainFunction(
            self, domain, "task", config=self.config, timeout_s=timeout_s, memory_mib=memory_mib, layers=layers
        )
        function.use_table(domain, data.tables[domain])
        function.use_table("runs", data.tables["runs"])
        return function

"""Alarms, for those who ask for them (`-c alarm_email=…`): each costs $0.10 a month beyond an account's first ten."""

from collections.abc import Iterator

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.api import ApiStack
from stacks.config import Config
from stacks.constructs.function import DomainFunction
from stacks.constructs.stack import FoundryStack
from stacks.events import EventsStack
from stacks.metrics import MetricsStack
from stacks.workflows import WorkflowsStack

_FIVE_MINUTES = cdk.Duration.minutes(5)


class AlarmsStack(FoundryStack):
    """Every alarm means that a person should look; docs/deploy.md says at what."""

    def __init__(
        self, scope: Construct, config: Config, *,
        events: EventsStack, workflows: WorkflowsStack, metrics: MetricsStack, api: ApiStack,
    ) -> None:  # fmt: skip
        super().__init__(scope, "alarms", config)
        self.topic = sns.Topic(self, "Topic", topic_name=config.name("alarms"), enforce_ssl=True)
        self.topic.add_subscription(subscriptions.EmailSubscription(config.alarm_email))
        for queue in (
            events.dead,
            workflows.dead,
            workflows.undelivered,
            workflows.unasked,
            workflows.wakes.dead,
            metrics.loads.dead,
            metrics.events.dead,
        ):
            self._dead_letters(queue)
        for kind, flow in workflows.flows.items():
            self._alarm(f"flow-{kind}", "Executions failed", flow.machine.metric_failed(period=_FIVE_MINUTES))
        for function in _functions(events, workflows, metrics, api):
            self._alarm(f"errors-{function.node.id}", "Invocations failed",
                        function.function.metric_errors(period=_FIVE_MINUTES))  # fmt: skip
        throttles = cloudwatch.Metric(
            namespace="AWS/Lambda", metric_name="Throttles", statistic="Sum", period=_FIVE_MINUTES
        )
        self._alarm("throttles", "The account's Lambda concurrency is used up", throttles)
        self._alarm(
            "api-5xx", "The API answered 5xx", api.api.metric_server_error(period=_FIVE_MINUTES, statistic="Sum")
        )

    def _dead_letters(self, queue: sqs.Queue) -> None:
        depth = queue.metric_approximate_number_of_messages_visible(period=_FIVE_MINUTES, statistic="Maximum")
        self._alarm(f"dlq-{queue.node.path.replace('/', '-')}", "Messages that nobody could process", depth)

    def _alarm(self, id_: str, description: str, metric: cloudwatch.IMetric) -> None:
        alarm = cloudwatch.Alarm(
            self, id_, alarm_name=self.config.name(id_), alarm_description=description, metric=metric,
            threshold=0, comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1, treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )  # fmt: skip
        alarm.add_alarm_action(actions.SnsAction(self.topic))


def _functions(
    events: EventsStack, workflows: WorkflowsStack, metrics: MetricsStack, api: ApiStack
) -> Iterator[DomainFunction]:
    yield events.relay
    yield from (workflows.app, workflows.model, workflows.sim, workflows.cluster, workflows.orphans, workflows.daily)
    yield from (workflows.idle, workflows.on_event, metrics.loader, metrics.on_event)
    yield from api.functions.values()

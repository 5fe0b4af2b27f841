"""A queue that never loses a message silently, its consumer, and the events that it gets."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.constructs.function import DomainFunction
from stacks.constructs.stack import FoundryStack

_RECEIVES = 5


class QueueWithDlq(Construct):
    """Encrypted, TLS only; after five receives a message goes to the dead-letter queue and stays there 14 days."""

    def __init__(self, scope: Construct, id_: str, *, name: str, consumer_timeout: cdk.Duration) -> None:
        super().__init__(scope, id_)
        self.dead = dead_letter_queue(self, "Dead", name=f"{name}-dlq")
        self.queue = sqs.Queue(
            self, "Queue", queue_name=name, encryption=sqs.QueueEncryption.SQS_MANAGED, enforce_ssl=True,
            # Six times the consumer's timeout, as Lambda asks for, so that a slow batch is not delivered twice.
            visibility_timeout=cdk.Duration.seconds(6 * consumer_timeout.to_seconds()),
            retention_period=cdk.Duration.days(4),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead, max_receive_count=_RECEIVES),
        )  # fmt: skip


def dead_letter_queue(scope: Construct, id_: str, *, name: str) -> sqs.Queue:
    return sqs.Queue(
        scope, id_, queue_name=name, encryption=sqs.QueueEncryption.SQS_MANAGED, enforce_ssl=True,
        retention_period=cdk.Duration.days(14),
    )  # fmt: skip


def consume(stack: FoundryStack, function: DomainFunction, batch_size: int) -> QueueWithDlq:
    """A queue of the function's name, whose messages it gets."""
    name = function.node.id
    queue = QueueWithDlq(stack, f"{name}-queue", name=stack.config.name(name), consumer_timeout=function.timeout)
    source = sources.SqsEventSource(queue.queue, batch_size=batch_size, report_batch_item_failures=True)
    function.function.add_event_source(source)
    return queue


def subscribe(
    stack: FoundryStack, rule_name: str, bus: events.IEventBus, type_prefixes: Sequence[str], queue: QueueWithDlq
) -> None:
    """Events whose type begins with one of ``type_prefixes`` go to the queue."""
    types = [found for prefix in type_prefixes for found in events.Match.prefix(prefix)]
    events.Rule(
        stack, "Events", rule_name=stack.config.name(rule_name), event_bus=bus,
        event_pattern=events.EventPattern(detail_type=types),
        targets=[targets.SqsQueue(queue.queue, dead_letter_queue=queue.dead)],
    )  # fmt: skip

"""A queue that never loses a message silently."""

import aws_cdk as cdk
from aws_cdk import aws_sqs as sqs
from constructs import Construct

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

"""The bus, and the relay that moves outbox items from the tables' streams onto it."""

from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from stacks.config import Config
from stacks.constructs.checks import accept
from stacks.constructs.function import DomainFunction
from stacks.constructs.queue import dead_letter_queue
from stacks.constructs.stack import FoundryStack
from stacks.constructs.table import DomainTable
from stacks.data import DataStack

_OUTBOX_ONLY = lambda_.FilterCriteria.filter(
    {
        "eventName": lambda_.FilterRule.is_equal("INSERT"),
        "dynamodb": {"Keys": {"pk": {"S": lambda_.FilterRule.begins_with("OUTBOX#")}}},
    }
)
_RETRIES = 50  # with Lambda's back-off, hours of a bus that refuses; the outbox item itself is kept for a week


class EventsStack(FoundryStack):
    def __init__(self, scope: Construct, config: Config, data: DataStack) -> None:
        super().__init__(scope, "events", config)
        self.bus = events.EventBus(self, "Bus", event_bus_name=f"foundry-{config.stage}")
        self.relay = DomainFunction(
            self, "core", "relay", config=config, timeout_s=60, memory_mib=256,
            handler="foundry_core.outbox.relay", code=lambda_.Code.from_inline("# The relay is in the base layer."),
        )  # fmt: skip
        self.relay.set("EVENT_BUS", self.bus.event_bus_name)
        self.relay.allow(("events:PutEvents",), self.bus.event_bus_arn)
        self.dead = dead_letter_queue(self, "RelayDead", name=config.name("relay-dlq"))
        accept(self.dead, "SQS3", "It is the dead-letter queue, of event source mappings.")
        self.dead.grant_send_messages(self.relay.function)
        for name, table in data.tables.items():
            self._read_stream(name, table)

    def _read_stream(self, name: str, table: DomainTable) -> None:
        for statement in table.stream_access():
            self.relay.function.add_to_role_policy(statement)
        self.relay.function.add_event_source_mapping(
            f"Stream-{name}", event_source_arn=table.stream_arn, filters=[_OUTBOX_ONLY],
            starting_position=lambda_.StartingPosition.TRIM_HORIZON, batch_size=100, retry_attempts=_RETRIES,
            bisect_batch_on_error=True, report_batch_item_failures=True, on_failure=sources.SqsDlq(self.dead),
        )  # fmt: skip

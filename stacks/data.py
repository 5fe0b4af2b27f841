"""Tables and the key that encrypts them."""

from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.config import Config
from stacks.constructs.stack import FoundryStack
from stacks.constructs.table import DomainTable

TABLES = ("app", "model", "cluster", "sim", "metrics", "runs")


class DataStack(FoundryStack):
    def __init__(self, scope: Construct, config: Config) -> None:
        super().__init__(scope, "data", config)
        self.key = kms.Key(
            self, "Key", alias=f"alias/{config.name('data')}", enable_key_rotation=True, removal_policy=self.removal,
            description=f"Foundry {config.stage}: tables, and secrets kept in items",
        )  # fmt: skip
        self.tables = {name: self._table(name) for name in TABLES}

    def _table(self, name: str) -> DomainTable:
        return DomainTable(self, name, name=self.config.name(name), key=self.key, removal=self.removal)

"""What every stack of the application has in common."""

import aws_cdk as cdk
from constructs import Construct

from stacks.config import Config


class FoundryStack(cdk.Stack):
    """A stack named `foundry-<stage>-<part>`, in whatever account and region it is deployed to."""

    def __init__(self, scope: Construct, part: str, config: Config) -> None:
        super().__init__(scope, part, stack_name=config.name(part), description=f"Foundry {config.stage}: {part}")
        self.config = config
        self.removal = cdk.RemovalPolicy.DESTROY if config.disposable else cdk.RemovalPolicy.RETAIN
        cdk.Tags.of(self).add("foundry:stage", config.stage)

    def show(self, name: str, value: str) -> None:
        """A stack output that people and scripts read."""
        cdk.CfnOutput(self, name, value=value)

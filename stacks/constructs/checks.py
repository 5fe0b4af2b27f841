"""cdk-nag runs at every synthesis; what it may not complain about is accepted next to the resource, with a reason."""

import aws_cdk as cdk
import cdk_nag
from constructs import IConstruct


def check(app: cdk.App) -> None:
    """Synthesis fails on anything that AwsSolutions finds and nobody has accepted."""
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks())


def accept(construct: IConstruct, rule: str, reason: str) -> None:
    """``rule`` without its pack, such as `SQS3` or `IAM5[Resource::*]`; holds for everything below ``construct``."""
    acknowledgment = cdk.Acknowledgment(id=f"AwsSolutions::AwsSolutions-{rule}", reason=reason)
    cdk.Validations.of(construct).acknowledge(acknowledgment)

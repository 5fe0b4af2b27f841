"""What the inference gateway needs from AWS: a place for its image, and an identity for its pods."""

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.config import Config
from stacks.constructs.stack import FoundryStack

_IMAGES_KEPT = 10


class GatewayStack(FoundryStack):
    """The image is pushed to the repository (docs/deploy.md), not built by `cdk deploy`, which then needs no Docker."""

    def __init__(self, scope: Construct, config: Config) -> None:
        super().__init__(scope, "gateway", config)
        self.repository = ecr.Repository(
            self, "Image", repository_name=f"foundry-{config.stage}/gateway", image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE, removal_policy=self.removal,
            empty_on_delete=config.disposable,
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=_IMAGES_KEPT)],
        )  # fmt: skip
        self.role = self._pod_role()
        self.show("ImageRepository", self.repository.repository_uri)
        self.show("PodRoleArn", self.role.role_arn)
        self.show("TokenParameter", self.token_parameter)

    @property
    def token_parameter(self) -> str:
        """Name only: CloudFormation cannot create a SecureString, and a Secrets Manager secret is billed while idle."""
        return f"/foundry/{self.config.stage}/gateway-token"

    def _pod_role(self) -> iam.Role:
        """EKS Pod Identity, so that one role serves gateways in any EKS cluster of the account.

        Opening the SecureString needs no more: the policy of the key `aws/ssm` lets Parameter Store decide.
        """
        pods = iam.ServicePrincipal("pods.eks.amazonaws.com").with_session_tags()
        role = iam.Role(self, "PodRole", role_name=self.config.name("gateway"), assumed_by=pods)
        arn = self.format_arn(service="ssm", resource="parameter", resource_name=self.token_parameter.lstrip("/"))
        role.add_to_policy(iam.PolicyStatement(actions=["ssm:GetParameter"], resources=[arn]))
        return role

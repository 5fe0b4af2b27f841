"""A Lambda function of a domain, with its own role; each capability adds the variable and the grant together."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.config import Config
from stacks.constructs.checks import accept
from stacks.constructs.code import RUNTIME, Layers, domain_code
from stacks.constructs.flow import Flow
from stacks.constructs.table import DomainTable


class DomainFunction(Construct):
    """`functions.<domain>.handler.<entry>`, deployed as `foundry-<stage>-<domain>-<entry>`."""

    def __init__(
        self, scope: Construct, domain: str, entry: str, *, config: Config, timeout_s: int, memory_mib: int = 512,
        layers: Sequence[str] = (), handler: str | None = None, code: lambda_.Code | None = None,
    ) -> None:  # fmt: skip
        super().__init__(scope, f"{domain}-{entry}".replace("_", "-"))
        self.timeout = cdk.Duration.seconds(timeout_s)
        name = config.name(self.node.id)
        log_group = self._log_group(name)
        self.function = lambda_.Function(
            self, "Function", function_name=name,
            role=iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")),
            runtime=RUNTIME, architecture=lambda_.Architecture.ARM_64,
            handler=handler or f"functions.{domain}.handler.{entry}", code=code or domain_code(domain),
            layers=[Layers.of(self).version(layer) for layer in ("base", *layers)],
            memory_size=memory_mib, timeout=self.timeout,
            logging_format=lambda_.LoggingFormat.JSON, log_group=log_group,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if entry == "api" and config.snap_start else None,
            environment={
                "STAGE": config.stage,
                "POWERTOOLS_SERVICE_NAME": domain,
                "POWERTOOLS_METRICS_NAMESPACE": "Foundry",
            },
        )  # fmt: skip
        if "numerics" in layers:
            self.set("OPENBLAS_NUM_THREADS", "1")  # its threads cost small products more than they save
        log_group.grant_write(self.function)
        accept(
            self.function,
            "L1",
            "Locked wheels and byte code are built for Python 3.13; the project supports up to 3.13.",
        )

    def _log_group(self, name: str) -> logs.LogGroup:
        return logs.LogGroup(
            self, "Logs", log_group_name=f"/foundry/{name}",
            retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY,
        )  # fmt: skip

    def set(self, name: str, value: str) -> None:
        self.function.add_environment(name, value)

    def allow(self, actions: Sequence[str], resource: str) -> None:
        self._allow_all([iam.PolicyStatement(actions=list(actions), resources=[resource])])

    def allow_objects(self, actions: Sequence[str], bucket: str, prefix: str) -> None:
        """``bucket`` by its physical name, in which account and region are still CloudFormation's to fill in."""
        objects = f":s3:::{bucket}/{prefix}*"
        self.allow(actions, f"arn:{cdk.Aws.PARTITION}{objects}")
        shown = objects.replace(cdk.Aws.ACCOUNT_ID, "<AWS::AccountId>").replace(cdk.Aws.REGION, "<AWS::Region>")
        accept(
            self, f"IAM5[Resource::arn:<AWS::Partition>{shown}]", f"Objects under {prefix} are named by their writers."
        )

    def use_table(self, domain: str, table: DomainTable) -> None:
        self.set(f"{domain.upper()}_TABLE", table.name)
        self._allow_all(table.access())

    def read_memberships(self, app_table: DomainTable) -> None:
        self.set("APP_TABLE", app_table.name)
        self._allow_all(app_table.memberships())

    def use_secrets(self, key: kms.IKey) -> None:
        """Seal and open secrets that are kept in items, each with a data key of its own."""
        self.set("SECRETS_KEY_ID", key.key_id)
        self.allow(("kms:Decrypt", "kms:GenerateDataKey"), key.key_arn)

    def start(self, *flows: Flow) -> None:
        for flow in flows:
            self.set(f"{flow.kind.upper()}_ARN", flow.machine.state_machine_arn)
            self.allow(("states:StartExecution",), flow.machine.state_machine_arn)

    def _allow_all(self, statements: Sequence[iam.PolicyStatement]) -> None:
        for statement in statements:
            self.function.add_to_role_policy(statement)

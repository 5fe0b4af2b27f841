"""The one shape that every DynamoDB table has."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

_READ = ("GetItem", "BatchGetItem", "Query", "DescribeTable")
_WRITE = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "ConditionCheckItem")
# The principal that calls DynamoDB needs these on the table's key; explicit names instead of `kms:ReEncrypt*`.
_KEY_ACTIONS = (
    "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom", "kms:ReEncryptTo",
)  # fmt: skip


class DomainTable(Construct):
    """`pk`/`sk` + `gsi1`, on-demand, point-in-time recovery, customer key, stream of new images, TTL `expires_at`."""

    def __init__(self, scope: Construct, id_: str, *, name: str, key: kms.IKey, removal: cdk.RemovalPolicy) -> None:
        super().__init__(scope, id_)
        self.key = key
        self.table = dynamodb.Table(
            self, "Table", table_name=name, removal_policy=removal,
            deletion_protection=removal == cdk.RemovalPolicy.RETAIN,
            partition_key=_string("pk"), sort_key=_string("sk"),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED, encryption_key=key,
            stream=dynamodb.StreamViewType.NEW_IMAGE, time_to_live_attribute="expires_at",
        )  # fmt: skip
        self.table.add_global_secondary_index(
            index_name="gsi1", partition_key=_string("gsi1pk"), sort_key=_string("gsi1sk")
        )

    @property
    def name(self) -> str:
        return self.table.table_name

    @property
    def stream_arn(self) -> str:
        arn = self.table.table_stream_arn
        assert arn is not None
        return arn

    def access(self) -> list[iam.PolicyStatement]:
        """Read and write items; no scans, no table administration."""
        return [
            self._allow((*_READ, *_WRITE), [self.table.table_arn, f"{self.table.table_arn}/index/gsi1"]),
            self.unlock(),
        ]

    def memberships(self) -> list[iam.PolicyStatement]:
        """Read the items of projects: how the other domains learn who is a member."""
        leading = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["PROJECT#*"]}}
        return [self._allow(("GetItem", "Query"), [self.table.table_arn], leading), self.unlock()]

    def stream_access(self) -> list[iam.PolicyStatement]:
        """What Lambda's poller does with the function's role."""
        read = self._allow(("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"), [self.stream_arn])
        return [read, self.unlock()]

    def unlock(self) -> iam.PolicyStatement:
        """Use of the key through DynamoDB only, so that table access never opens a secret."""
        via = {"StringEquals": {"kms:ViaService": f"dynamodb.{cdk.Aws.REGION}.{cdk.Aws.URL_SUFFIX}"}}
        return iam.PolicyStatement(actions=list(_KEY_ACTIONS), resources=[self.key.key_arn], conditions=via)

    @staticmethod
    def _allow(
        actions: Sequence[str], resources: list[str], conditions: dict[str, dict[str, list[str]]] | None = None
    ) -> iam.PolicyStatement:
        names = [f"dynamodb:{action}" for action in actions]
        return iam.PolicyStatement(actions=names, resources=resources, conditions=conditions)


def _string(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)

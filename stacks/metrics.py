"""Metering batches into ClickHouse, and events that the metrics domain keeps count of."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.config import Config
from stacks.constructs.checks import accept
from stacks.constructs.function import DomainFunction
from stacks.constructs.queue import QueueWithDlq, consume, subscribe
from stacks.constructs.stack import FoundryStack
from stacks.data import DataStack
from stacks.events import EventsStack

METERING_PREFIX = "metering/"
CAPTURES_PREFIX = "captures/"
FILES_PREFIX = "files/"  # of clients, and what batches answer
QUARANTINE_PREFIX = "quarantine/"  # what the loader could not use
_CAPTURES_KEPT_DAYS = 30
_FILES_KEPT_DAYS = 32  # longer than their records (functions/app/services/files.py)
_KEPT_DAYS = 400  # a year of raw batches, and time to notice


class MetricsStack(FoundryStack):
    def __init__(self, scope: Construct, config: Config, data: DataStack, events_: EventsStack) -> None:
        super().__init__(scope, "metrics", config)
        self.loader = DomainFunction(
            self, "metrics", "loader", config=config, timeout_s=120, memory_mib=1024, layers=("metrics",)
        )
        self.loader.set("CLICKHOUSE_DSN", config.clickhouse_dsn)
        self.loads = consume(self, self.loader, batch_size=10)
        self.bucket_name = (
            f"{config.name('metering')}-{cdk.Aws.ACCOUNT_ID}-{cdk.Aws.REGION}"  # unique among all accounts
        )
        self.bucket = self._bucket(self.loads)
        self.loader.set("METERING_BUCKET", self.bucket.bucket_name)
        self.loader.allow_objects(("s3:GetObject",), self.bucket_name, METERING_PREFIX)
        # Without it S3 answers 403, not 404, for a batch that has expired in the meantime.
        self.loader.allow(("s3:ListBucket",), self.bucket.bucket_arn)
        self.loader.allow_objects(("s3:PutObject",), self.bucket_name, QUARANTINE_PREFIX)
        self.on_event = DomainFunction(
            self, "metrics", "on_event", config=config, timeout_s=60, memory_mib=256, layers=("metrics",)
        )
        self.on_event.use_table("metrics", data.tables["metrics"])
        self.on_event.set("CLICKHOUSE_DSN", config.clickhouse_dsn)
        self.events = consume(self, self.on_event, batch_size=10)
        subscribe(self, "metrics-on-event", events_.bus, ("foundry.deployment.",), self.events)

    def _bucket(self, target: QueueWithDlq) -> s3.Bucket:
        bucket = s3.Bucket(
            self, "Metering", bucket_name=self.bucket_name,
            encryption=s3.BucketEncryption.S3_MANAGED, block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True, removal_policy=self.removal,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=cdk.Duration.days(_KEPT_DAYS),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(2),
                ),
                s3.LifecycleRule(expiration=cdk.Duration.days(_CAPTURES_KEPT_DAYS), prefix=CAPTURES_PREFIX),
                s3.LifecycleRule(expiration=cdk.Duration.days(_FILES_KEPT_DAYS), prefix=FILES_PREFIX),
            ],
        )  # fmt: skip
        accept(bucket, "S1", "Batches are written with presigned URLs that the app domain logs.")
        self._notify(bucket, target)
        return bucket

    def _notify(self, bucket: s3.Bucket, target: QueueWithDlq) -> None:
        """Plain CloudFormation: the L2 `add_event_notification` brings a custom resource and its function along."""
        arn = self.format_arn(service="s3", region="", account="", resource=self.config.name("metering-*"))
        target.queue.add_to_resource_policy(iam.PolicyStatement(
            actions=["sqs:SendMessage"], resources=[target.queue.queue_arn],
            principals=[iam.ServicePrincipal("s3.amazonaws.com")],
            conditions={"ArnLike": {"aws:SourceArn": arn}, "StringEquals": {"aws:SourceAccount": self.account}},
        ))  # fmt: skip
        resource = bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[s3.CfnBucket.QueueConfigurationProperty(
                event="s3:ObjectCreated:*", queue=target.queue.queue_arn,
                filter=s3.CfnBucket.NotificationFilterProperty(s3_key=s3.CfnBucket.S3KeyFilterProperty(
                    rules=[s3.CfnBucket.FilterRuleProperty(name="prefix", value=METERING_PREFIX)]
                )),
            )]
        )  # fmt: skip
        policy = target.queue.node.find_child("Policy").node.default_child
        assert isinstance(policy, cdk.CfnResource)
        resource.add_resource_dependency(policy)  # S3 checks at creation that it may send

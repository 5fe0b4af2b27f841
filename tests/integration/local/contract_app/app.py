"""A small CDK app with one of everything that the platform relies on, in two stacks that share exports."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import (
    aws_apigatewayv2 as apigateway,
)
from aws_cdk import (
    aws_apigatewayv2_authorizers as authorizers,
)
from aws_cdk import (
    aws_apigatewayv2_integrations as integrations,
)
from aws_cdk import (
    aws_cognito as cognito,
)
from aws_cdk import (
    aws_dynamodb as dynamodb,
)
from aws_cdk import (
    aws_events as events,
)
from aws_cdk import (
    aws_events_targets as targets,
)
from aws_cdk import (
    aws_kms as kms,
)
from aws_cdk import (
    aws_lambda as lambda_,
)
from aws_cdk import (
    aws_lambda_event_sources as sources,
)
from aws_cdk import (
    aws_s3 as s3,
)
from aws_cdk import (
    aws_s3_notifications as notifications,
)
from aws_cdk import (
    aws_sqs as sqs,
)
from aws_cdk import (
    aws_stepfunctions as stepfunctions,
)

HERE = Path(__file__).parent
REMOVE = cdk.RemovalPolicy.DESTROY


class Data(cdk.Stack):
    def __init__(self, app: cdk.App) -> None:
        super().__init__(app, "contract-data")
        self.key = kms.Key(self, "Key", removal_policy=REMOVE)
        self.table = dynamodb.Table(
            self, "Table", table_name="contract", removal_policy=REMOVE,
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            stream=dynamodb.StreamViewType.NEW_IMAGE, billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        )  # fmt: skip
        self.bus = events.EventBus(self, "Bus", event_bus_name="contract")
        self.queue = sqs.Queue(self, "Queue", queue_name="contract", visibility_timeout=cdk.Duration.seconds(30))
        self.bucket = s3.Bucket(self, "Bucket", bucket_name="contract-uploads", removal_policy=REMOVE)
        self.bucket.add_event_notification(s3.EventType.OBJECT_CREATED, notifications.SqsDestination(self.queue))
        events.Rule(
            self, "Rule", event_bus=self.bus, targets=[targets.SqsQueue(self.queue)],
            event_pattern=events.EventPattern(source=["contract"]),
        )  # fmt: skip
        cdk.CfnOutput(self, "KeyId", value=self.key.key_id)


class Services(cdk.Stack):
    def __init__(self, app: cdk.App, data: Data) -> None:
        super().__init__(app, "contract-services")
        self.layer = lambda_.LayerVersion(self, "Layer", code=lambda_.Code.from_asset(str(HERE)))
        self.data = data
        self._event_sources()
        self._api()
        self._state_machine()

    def _function(self, name: str, **more: object) -> lambda_.Function:
        return lambda_.Function(
            self, name, function_name=f"contract-{name}", runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64, handler=f"contract_handlers.{name}",
            code=lambda_.Code.from_asset(str(HERE)), layers=[self.layer],
            environment={"CONTRACT_TABLE": self.data.table.table_name, "OWN_NAME": name},
            **{"timeout": cdk.Duration.seconds(10), **more},
        )  # fmt: skip

    def _event_sources(self) -> None:
        relay, consume = self._function("relay"), self._function("consume")
        start = lambda_.StartingPosition.TRIM_HORIZON
        relay.add_event_source(sources.DynamoEventSource(self.data.table, starting_position=start, retry_attempts=3))
        consume.add_event_source(sources.SqsEventSource(self.data.queue, report_batch_item_failures=True))

    def _api(self) -> None:
        pool = cognito.UserPool(self, "Pool", removal_policy=REMOVE)
        client = pool.add_client(
            "Client", auth_flows=cognito.AuthFlow(admin_user_password=True, user_password=True),
            access_token_validity=cdk.Duration.minutes(5),
        )  # fmt: skip
        cognito.CfnUserPoolGroup(self, "Admins", user_pool_id=pool.user_pool_id, group_name="admin")
        issuer = f"https://cognito-idp.{self.region}.amazonaws.com/{pool.user_pool_id}"
        jwt = authorizers.HttpJwtAuthorizer("Jwt", issuer, jwt_audience=[client.user_pool_client_id])
        api = apigateway.HttpApi(self, "Api", default_authorizer=jwt)
        self._routes(api)
        for name, value in {
            "ApiId": api.api_id,
            "PoolId": pool.user_pool_id,
            "ClientId": client.user_pool_client_id,
        }.items():
            cdk.CfnOutput(self, name, value=value)

    def _routes(self, api: apigateway.HttpApi) -> None:
        snap = self._function("snap", snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS)
        live = lambda_.Alias(self, "Live", alias_name="live", version=snap.current_version)
        general = integrations.HttpLambdaIntegration("General", self._function("general"))
        special = integrations.HttpLambdaIntegration("Special", live)
        api.add_routes(path="/projects/{proxy+}", integration=general)
        api.add_routes(path="/projects/{project_id}/deployments/{proxy+}", integration=special)
        api.add_routes(path="/slow", integration=integrations.HttpLambdaIntegration("Slow", self._function("slow")))
        api.add_routes(path="/open", integration=general, authorizer=apigateway.HttpNoneAuthorizer())

    def _state_machine(self) -> None:
        raises = self._function("raises")
        stuck = self._function("stuck", timeout=cdk.Duration.seconds(1))
        machine = stepfunctions.CfnStateMachine(
            self, "Machine", state_machine_name="contract",
            role_arn=cdk.Fn.sub("arn:aws:iam::${AWS::AccountId}:role/contract"),
            definition_string=(HERE / "statemachines" / "machine.asl.json").read_text(),
            definition_substitutions={"RaisesArn": raises.function_arn, "StuckArn": stuck.function_arn},
        )  # fmt: skip
        cdk.CfnOutput(self, "MachineArn", value=machine.attr_arn)


app = cdk.App()
Services(app, Data(app))
app.synth()

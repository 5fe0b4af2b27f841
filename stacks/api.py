"""The public REST API: one route table, one Lambda per domain, tokens of the user pool checked before any code runs."""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks import routes
from stacks.config import Config
from stacks.constructs.checks import accept
from stacks.constructs.flow import Flow
from stacks.constructs.function import DomainFunction
from stacks.constructs.stack import FoundryStack
from stacks.data import DataStack
from stacks.identity import IdentityStack
from stacks.metrics import CAPTURES_PREFIX, FILES_PREFIX, METERING_PREFIX, MetricsStack
from stacks.workflows import WorkflowsStack

LAYERS_OF = {
    "app": ("secrets",), "model": ("sim",), "cluster": ("sim", "kube"), "sim": ("sim", "numerics"),
    "metrics": ("metrics",),
}  # fmt: skip
_USER_ADMINISTRATION = (
    "AdminAddUserToGroup", "AdminCreateUser", "AdminDeleteUser", "AdminDisableUser", "AdminEnableUser", "AdminGetUser",
    "AdminListGroupsForUser", "AdminRemoveUserFromGroup", "ListUsers",
)  # fmt: skip
_ACCESS_LOG = {
    "requestId": "$context.requestId", "time": "$context.requestTime", "ip": "$context.identity.sourceIp",
    "route": "$context.routeKey", "path": "$context.path", "status": "$context.status",
    "latency_ms": "$context.responseLatency", "user": "$context.authorizer.claims.sub",
    "error": "$context.error.message", "integration_error": "$context.integrationErrorMessage",
}  # fmt: skip
# Per method: a worker of a gateway polls its config once a second and sends about one batch of leases in that time.
_GATEWAY_THROTTLE = {"ThrottlingRateLimit": 75, "ThrottlingBurstLimit": 150}


class ApiStack(FoundryStack):
    def __init__(
        self, scope: Construct, config: Config, *,
        data: DataStack, identity: IdentityStack, workflows: WorkflowsStack, metrics: MetricsStack,
    ) -> None:  # fmt: skip
        super().__init__(scope, "api", config)
        self.functions = {domain: self._function(domain, data) for domain in routes.ROUTES}
        self._empower(data, identity, workflows.flows, metrics)
        self.api = self._http_api()
        self.stage = self._stage()
        self._add_routes(identity)
        self._throttle_gateways()
        accept(self.api, "APIG4", "Only /gateway: gateways carry a token of their own, which the app domain checks.")
        self.show("ApiUrl", self.api.api_endpoint)

    def _function(self, domain: str, data: DataStack) -> DomainFunction:
        function = DomainFunction(
            self, domain, "api", config=self.config, timeout_s=29, memory_mib=1024, layers=LAYERS_OF.get(domain, ())
        )
        function.use_table(domain, data.tables[domain])
        if domain != "app":
            function.read_memberships(data.tables["app"])
        return function

    def _empower(self, data: DataStack, identity: IdentityStack, flows: dict[str, Flow], metrics: MetricsStack) -> None:
        app, cluster, sim = (self.functions[domain] for domain in ("app", "cluster", "sim"))
        for function in (app, cluster, sim):
            function.use_table("runs", data.tables["runs"])
        app.start(*flows.values())  # a retry starts the next attempt
        sim.start(flows["simulate"], flows["recommend"])
        cluster.start(*(flow for kind, flow in flows.items() if kind not in ("simulate", "recommend")))
        for keeper in (app, cluster):
            keeper.use_secrets(data.key)
        app.set("USER_POOL_ID", identity.pool.user_pool_id)
        app.allow([f"cognito-idp:{action}" for action in _USER_ADMINISTRATION], identity.pool.user_pool_arn)
        app.set("METERING_BUCKET", metrics.bucket.bucket_name)
        for prefix in (METERING_PREFIX, CAPTURES_PREFIX):  # presigned for gateways
            app.allow_objects(("s3:PutObject",), metrics.bucket_name, prefix)
        files = ("s3:PutObject", "s3:GetObject", "s3:DeleteObject")  # the first two presigned for gateways
        app.allow_objects(files, metrics.bucket_name, FILES_PREFIX)
        self.functions["metrics"].set("CLICKHOUSE_DSN", self.config.clickhouse_dsn)

    def _http_api(self) -> http.HttpApi:
        return http.HttpApi(
            self, "Http", api_name=self.config.name("api"), create_default_stage=False,
            cors_preflight=http.CorsPreflightOptions(
                allow_origins=list(self.config.web_origins), max_age=cdk.Duration.hours(1),
                allow_methods=[http.CorsHttpMethod[method] for method in routes.METHODS],
                allow_headers=["authorization", "content-type", "idempotency-key", "if-match", "if-none-match"],
                expose_headers=["etag", "location", "retry-after"],
            ),
        )  # fmt: skip

    def _stage(self) -> http.HttpStage:
        stage = http.HttpStage(
            self, "Stage", http_api=self.api, stage_name="$default", auto_deploy=True,
            throttle=http.ThrottleSettings(rate_limit=200, burst_limit=400),
        )  # fmt: skip
        access = logs.LogGroup(
            self, "AccessLogs", log_group_name=f"/aws/vendedlogs/{self.config.name('api')}",
            retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY,
        )  # fmt: skip
        _resource(stage).access_log_settings = http.CfnStage.AccessLogSettingsProperty(
            destination_arn=access.log_group_arn, format=json.dumps(_ACCESS_LOG)
        )
        return stage

    def _throttle_gateways(self) -> None:
        """Anybody can send to these routes: a limit of their own keeps a flood from taking everybody's share."""
        keys = [f"{method} {routes.GATEWAY}" for method in routes.GATEWAY_METHODS]
        _resource(self.stage).route_settings = dict.fromkeys(keys, _GATEWAY_THROTTLE)
        self.stage.node.add_dependency(*self.gateway_routes)  # settings of a route that is not there yet are refused

    def _add_routes(self, identity: IdentityStack) -> None:
        clients = [identity.web.user_pool_client_id, identity.cli.user_pool_client_id]
        tokens = authorizers.HttpJwtAuthorizer("Tokens", identity.issuer, jwt_audience=clients)
        for domain, function in self.functions.items():
            target = self._integration(domain, function)
            for path in routes.paths(domain):
                self._route(path, target, tokens)
            if domain == "app":
                self.gateway_routes = self._route(
                    routes.GATEWAY, target, http.HttpNoneAuthorizer(), routes.GATEWAY_METHODS
                )

    def _integration(self, domain: str, function: DomainFunction) -> integrations.HttpLambdaIntegration:
        """Behind an alias, which is what a snapshot of an initialised function hangs on (see `Config.snap_start`)."""
        live = lambda_.Alias(self, f"{domain}-live", alias_name="live", version=function.function.current_version)
        return integrations.HttpLambdaIntegration(domain, live, scope_permission_to_route=False)

    def _route(
        self, path: str, target: http.HttpRouteIntegration, authorizer: http.IHttpRouteAuthorizer,
        methods: Sequence[str] = routes.METHODS,
    ) -> list[http.HttpRoute]:  # fmt: skip
        allowed = [http.HttpMethod[method] for method in methods]
        return self.api.add_routes(path=path, methods=allowed, integration=target, authorizer=authorizer)


def _resource(stage: http.HttpStage) -> http.CfnStage:
    resource = stage.node.default_child
    assert isinstance(resource, http.CfnStage)
    return resource

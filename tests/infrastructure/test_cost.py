"""Idle, the platform costs storage and one key. What may appear is listed; everything else is refused."""

from typing import Any

import pytest
from aws_cdk import aws_cloudwatch as cloudwatch

from stacks.application import Application, build

# Resource type → why it costs nothing while nobody uses it, or what it costs.
ALLOWED = {
    "AWS::ApiGatewayV2::Api": "per request",
    "AWS::ApiGatewayV2::Authorizer": "free",
    "AWS::ApiGatewayV2::Integration": "free",
    "AWS::ApiGatewayV2::Route": "free",
    "AWS::ApiGatewayV2::Stage": "per request",
    "AWS::CDK::Metadata": "no resource",
    "AWS::Cognito::UserPool": "per active person, Essentials plan",
    "AWS::Cognito::UserPoolClient": "free",
    "AWS::Cognito::UserPoolDomain": "free with a prefix of Cognito's domain",
    "AWS::Cognito::UserPoolGroup": "free",
    "AWS::DynamoDB::Table": "on demand: storage and its backup",
    "AWS::ECR::Repository": "storage of images, which expire",
    "AWS::Events::EventBus": "per event",
    "AWS::Events::Rule": "free; what a schedule calls is paid per use, once a day",
    "AWS::IAM::Policy": "free",
    "AWS::IAM::Role": "free",
    "AWS::KMS::Alias": "free",
    "AWS::KMS::Key": "$1 a month: the one standing charge",
    "AWS::Lambda::Alias": "free without provisioned concurrency",
    "AWS::Lambda::EventInvokeConfig": "free",
    "AWS::Lambda::EventSourceMapping": "streams: free; queues: long polls, at most some cents a month (docs/deploy.md)",
    "AWS::Lambda::Function": "per use",
    "AWS::Lambda::LayerVersion": "within the free storage of the account",
    "AWS::Lambda::Permission": "free",
    "AWS::Lambda::Version": "free without SnapStart",
    "AWS::Logs::LogGroup": "storage, which expires",
    "AWS::S3::Bucket": "storage, which expires",
    "AWS::S3::BucketPolicy": "free",
    "AWS::SQS::Queue": "per request",
    "AWS::SQS::QueuePolicy": "free",
    "AWS::StepFunctions::StateMachine": "per transition",
}


def test_only_what_is_listed(stacks: Any) -> None:
    assert {resource.type for resource in stacks.all()} <= set(ALLOWED)


def test_the_list_is_not_longer_than_the_platform(stacks: Any) -> None:
    assert set(ALLOWED) - {resource.type for resource in stacks.all()} <= {"AWS::CDK::Metadata"}


def test_one_key(stacks: Any) -> None:
    assert len(stacks.all("AWS::KMS::Key")) == 1


def test_tables_are_on_demand(stacks: Any) -> None:
    tables = stacks.all("AWS::DynamoDB::Table")
    assert {table.properties["BillingMode"] for table in tables} == {"PAY_PER_REQUEST"}


def test_functions_are_not_kept_warm_or_cached(stacks: Any) -> None:
    for resource in stacks.all("AWS::Lambda::Function", "AWS::Lambda::Alias", "AWS::Lambda::Version"):
        assert not {"SnapStart", "ProvisionedConcurrencyConfig"} & set(resource.properties), resource.id


def test_pollers_are_not_provisioned(stacks: Any) -> None:
    for mapping in stacks.all("AWS::Lambda::EventSourceMapping"):
        assert "ProvisionedPollerConfig" not in mapping.properties


def test_little_is_called_by_itself(stacks: Any) -> None:
    rules = [rule.properties for rule in stacks.all("AWS::Events::Rule") if "ScheduleExpression" in rule.properties]
    assert {(rule["Name"], rule["ScheduleExpression"]) for rule in rules} == {
        ("foundry-test-daily", "cron(17 4 * * ? *)"),
        ("foundry-test-idle", "rate(15 minutes)"),  # 2,976 calls a month, each a query of one table
    }


def test_logs_batches_and_images_expire(stacks: Any) -> None:
    assert {group.properties["RetentionInDays"] for group in stacks.all("AWS::Logs::LogGroup")} == {30}
    for bucket in stacks.all("AWS::S3::Bucket"):
        assert bucket.properties["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] == 400
    for repository in stacks.all("AWS::ECR::Repository"):
        assert "imageCountMoreThan" in repository.properties["LifecyclePolicy"]["LifecyclePolicyText"]


def test_the_pool_is_not_on_the_plus_plan(stacks: Any) -> None:
    assert stacks.one("AWS::Cognito::UserPool", "foundry-test-people").properties["UserPoolTier"] == "ESSENTIALS"


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Application:
    """The application with everything that costs money while idle and can be chosen."""
    context = {
        "stage": "test", "alarm_email": "oncall@example.com", "snap_start": "true", "aws:cdk:bundling-stacks": [],
    }  # fmt: skip
    application = build(str(tmp_path_factory.mktemp("chosen")), context)
    application.app.synth()  # cdk-nag included
    return application


def test_alarms_exist_when_somebody_is_to_be_told(chosen: Application) -> None:
    alarms = chosen.app.node.find_child("alarms")
    found = [one for one in alarms.node.find_all() if isinstance(one, cloudwatch.CfnAlarm)]
    flows, queues, functions = 7, 7, 16
    assert len(found) == flows + queues + functions + len(("throttles", "api-5xx"))
    assert all(alarm.alarm_actions and alarm.treat_missing_data == "notBreaching" for alarm in found)


def test_snapshots_are_taken_of_api_functions_only(chosen: Application) -> None:
    def cached(function: Any) -> bool:
        return function.function.node.default_child.snap_start is not None

    assert all(cached(function) for function in chosen.api.functions.values())
    assert not cached(chosen.workflows.sim) and not cached(chosen.events.relay)


def test_disposable_decides_what_a_destroy_leaves(stacks: Any, templates: dict[str, Any]) -> None:
    kept = {
        r["Type"] for t in templates.values() for r in t["Resources"].values() if r.get("DeletionPolicy") == "Retain"
    }
    data = {
        "AWS::DynamoDB::Table",
        "AWS::KMS::Key",
        "AWS::Cognito::UserPool",
        "AWS::S3::Bucket",
        "AWS::ECR::Repository",
    }
    assert data <= kept
    assert all(table.properties["DeletionProtectionEnabled"] for table in stacks.all("AWS::DynamoDB::Table"))

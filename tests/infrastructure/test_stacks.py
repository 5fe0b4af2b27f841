"""What the smaller stacks promise: data, identity, events, metrics, gateway."""

import json
from typing import Any

import pytest
from foundry_core.principal import Role

TABLES = ("app", "cluster", "metrics", "model", "runs", "sim")
QUEUES = ("metrics-loader", "metrics-on-event", "cluster-on-event")
FLOWS = (
    "delete-deployment", "deploy-model", "register-cluster", "simulate", "recommend", "sleep-deployment",
    "wake-deployment",
)  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_table(stacks: Any, name: str) -> None:
    found = stacks.one("AWS::DynamoDB::Table", f"foundry-test-{name}").properties
    assert found["KeySchema"] == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]
    (index,) = found["GlobalSecondaryIndexes"]
    assert (index["IndexName"], index["Projection"]) == ("gsi1", {"ProjectionType": "ALL"})
    assert found["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert found["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert found["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert stacks.target("data", found["SSESpecification"]["KMSMasterKeyId"]).type == "AWS::KMS::Key"


def test_key_rotates_and_is_named(stacks: Any) -> None:
    (key,) = stacks.all("AWS::KMS::Key")
    (alias,) = stacks.all("AWS::KMS::Alias")
    assert key.properties["EnableKeyRotation"] is True
    assert alias.properties["AliasName"] == "alias/foundry-test-data"


def test_groups_are_roles(stacks: Any) -> None:
    groups = {group.properties["GroupName"] for group in stacks.all("AWS::Cognito::UserPoolGroup")}
    assert groups == {role.value for role in Role}


def test_people_are_invited(stacks: Any) -> None:
    pool = stacks.one("AWS::Cognito::UserPool", "foundry-test-people").properties
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    assert pool["UsernameAttributes"] == ["email"] and pool["UsernameConfiguration"] == {"CaseSensitive": False}
    assert pool["Policies"]["PasswordPolicy"]["MinimumLength"] == 12
    assert pool["DeletionProtection"] == "ACTIVE"


@pytest.mark.parametrize(("name", "password"), [("web", False), ("cli", True)])
def test_clients_are_public_and_use_codes(stacks: Any, name: str, password: bool) -> None:
    (client,) = [
        one.properties for one in stacks.all("AWS::Cognito::UserPoolClient")
        if one.properties["ClientName"] == f"foundry-test-{name}"
    ]  # fmt: skip
    assert client["GenerateSecret"] is False and client["AllowedOAuthFlows"] == ["code"]
    assert ("ALLOW_USER_PASSWORD_AUTH" in client["ExplicitAuthFlows"]) is password
    assert client["PreventUserExistenceErrors"] == "ENABLED" and client["EnableTokenRevocation"] is True
    assert all(url.startswith(("http://localhost:", "https://")) for url in client["CallbackURLs"])


def test_the_relay_sees_new_outbox_items_of_every_table_and_nothing_else(stacks: Any) -> None:
    mappings = [one for one in stacks.all("AWS::Lambda::EventSourceMapping") if one.stack == "events"]
    sources = {stacks.text("events", mapping.properties["EventSourceArn"]) for mapping in mappings}
    assert sources == {f"<foundry-test-{name}>" for name in TABLES}
    for found in (mapping.properties for mapping in mappings):
        (pattern,) = [json.loads(one["Pattern"]) for one in found["FilterCriteria"]["Filters"]]
        assert pattern == {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "OUTBOX#"}]}}}}
        assert found["FunctionResponseTypes"] == ["ReportBatchItemFailures"] and found["BisectBatchOnFunctionError"]
        assert found["StartingPosition"] == "TRIM_HORIZON" and found["MaximumRetryAttempts"] == 50
        assert (
            stacks.text("events", found["DestinationConfig"]["OnFailure"]["Destination"]) == "<foundry-test-relay-dlq>"
        )


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_parks_what_nobody_could_process(stacks: Any, name: str) -> None:
    queue = stacks.one("AWS::SQS::Queue", f"foundry-test-{name}")
    policy = queue.properties["RedrivePolicy"]
    assert policy["maxReceiveCount"] == 5
    assert stacks.text(queue.stack, policy["deadLetterTargetArn"]) == f"<foundry-test-{name}-dlq>"
    consumer = stacks.one("AWS::Lambda::Function", f"foundry-test-{name}")
    assert queue.properties["VisibilityTimeout"] >= 6 * consumer.properties["Timeout"]
    (mapping,) = [
        one.properties for one in stacks.all("AWS::Lambda::EventSourceMapping")
        if stacks.text(one.stack, one.properties["EventSourceArn"]) == f"<foundry-test-{name}>"
    ]  # fmt: skip
    assert stacks.text(queue.stack, mapping["FunctionName"]) == f"<foundry-test-{name}>"
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_queues_are_encrypted_and_refuse_plain_http(stacks: Any) -> None:
    refusing = {
        stacks.text(policy.stack, queue)
        for policy in stacks.all("AWS::SQS::QueuePolicy") for queue in policy.properties["Queues"]
        if any(s["Effect"] == "Deny" and s["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
               for s in policy.properties["PolicyDocument"]["Statement"])
    }  # fmt: skip
    queues = stacks.all("AWS::SQS::Queue")
    assert refusing == {f"<{queue.name}>" for queue in queues}
    assert all(queue.properties["SqsManagedSseEnabled"] for queue in queues)


def test_batches_arrive_in_the_loader_queue(stacks: Any) -> None:
    (bucket,) = stacks.all("AWS::S3::Bucket")
    (notice,) = bucket.properties["NotificationConfiguration"]["QueueConfigurations"]
    assert notice["Event"] == "s3:ObjectCreated:*"
    assert notice["Filter"] == {"S3Key": {"Rules": [{"Name": "prefix", "Value": "metering/"}]}}
    assert stacks.text("metrics", notice["Queue"]) == "<foundry-test-metrics-loader>"
    assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}


def test_s3_may_send_only_for_our_bucket(stacks: Any) -> None:
    statements = [
        s for policy in stacks.all("AWS::SQS::QueuePolicy") for s in policy.properties["PolicyDocument"]["Statement"]
        if s["Principal"] == {"Service": "s3.amazonaws.com"}
    ]  # fmt: skip
    (allow,) = statements
    assert stacks.text("metrics", allow["Condition"]["ArnLike"]["aws:SourceArn"]).endswith(
        ":s3:::foundry-test-metering-*"
    )
    assert stacks.text("metrics", allow["Condition"]["StringEquals"]["aws:SourceAccount"]) == "<AWS::AccountId>"


def test_metrics_hear_of_deployments(stacks: Any) -> None:
    rule = stacks.one("AWS::Events::Rule", "foundry-test-metrics-on-event")
    assert rule.properties["EventPattern"] == {"detail-type": [{"prefix": "foundry.deployment."}]}
    (target,) = rule.properties["Targets"]
    assert stacks.text("metrics", target["Arn"]) == "<foundry-test-metrics-on-event>"
    assert stacks.text("metrics", target["DeadLetterConfig"]["Arn"]) == "<foundry-test-metrics-on-event-dlq>"


def test_the_cluster_domain_hears_of_orders_to_wake_and_of_the_idle(stacks: Any) -> None:
    rule = stacks.one("AWS::Events::Rule", "foundry-test-cluster-on-event")
    assert rule.properties["EventPattern"] == {"detail-type": [
        {"prefix": "foundry.deployment.wake_wanted."}, {"prefix": "foundry.deployment.idle."}
    ]}  # fmt: skip
    (target,) = rule.properties["Targets"]
    assert stacks.text("workflows", target["Arn"]) == "<foundry-test-cluster-on-event>"
    assert stacks.text("workflows", target["DeadLetterConfig"]["Arn"]) == "<foundry-test-cluster-on-event-dlq>"


def test_ended_executions_of_every_flow_are_reported(stacks: Any) -> None:
    rule = stacks.one("AWS::Events::Rule", "foundry-test-executions-ended")
    pattern = rule.properties["EventPattern"]
    assert pattern["detail"]["status"] == ["FAILED", "TIMED_OUT", "ABORTED"] and "EventBusName" not in rule.properties
    machines = {stacks.text("workflows", arn) for arn in pattern["detail"]["stateMachineArn"]}
    assert machines == {f"<foundry-test-{flow}>" for flow in FLOWS}
    (target,) = rule.properties["Targets"]
    assert stacks.text("workflows", target["Arn"]) == "<foundry-test-core-orphans>"
    assert stacks.text("workflows", target["DeadLetterConfig"]["Arn"]) == "<foundry-test-orphans-dlq>"


def test_recommendations_are_made_once_a_day(stacks: Any) -> None:
    rule = stacks.one("AWS::Events::Rule", "foundry-test-daily")
    (target,) = rule.properties["Targets"]
    assert stacks.text("workflows", target["Arn"]) == "<foundry-test-sim-daily>"
    assert stacks.text("workflows", target["DeadLetterConfig"]["Arn"]) == "<foundry-test-daily-dlq>"


def test_what_may_sleep_is_asked_about_every_quarter_of_an_hour(stacks: Any) -> None:
    rule = stacks.one("AWS::Events::Rule", "foundry-test-idle")
    assert rule.properties["ScheduleExpression"] == "rate(15 minutes)"
    (target,) = rule.properties["Targets"]
    assert stacks.text("workflows", target["Arn"]) == "<foundry-test-app-idle>"
    assert stacks.text("workflows", target["DeadLetterConfig"]["Arn"]) == "<foundry-test-idle-dlq>"


def test_what_a_rule_could_not_make_a_function_do_is_kept(stacks: Any) -> None:
    kept = {
        stacks.text("workflows", config.properties["FunctionName"]):
        stacks.text("workflows", config.properties["DestinationConfig"]["OnFailure"]["Destination"])
        for config in stacks.all("AWS::Lambda::EventInvokeConfig")
    }  # fmt: skip
    assert kept == {"<foundry-test-core-orphans>": "<foundry-test-orphans-dlq>",
                    "<foundry-test-sim-daily>": "<foundry-test-daily-dlq>",
                    "<foundry-test-app-idle>": "<foundry-test-idle-dlq>"}  # fmt: skip


def test_gateway_pods_may_read_their_token_and_nothing_else(stacks: Any) -> None:
    role = stacks.one("AWS::IAM::Role", "foundry-test-gateway")
    trust = role.properties["AssumeRolePolicyDocument"]["Statement"]
    assert {s["Principal"]["Service"] for s in trust} == {"pods.eks.amazonaws.com"}
    (read,) = stacks.statements(role)
    assert read["Action"] == ["ssm:GetParameter"] and read["Resource"][0].endswith(
        ":parameter/foundry/test/gateway-token"
    )


def test_images_are_scanned_and_tags_never_move(stacks: Any) -> None:
    (repository,) = stacks.all("AWS::ECR::Repository")
    assert repository.properties["ImageTagMutability"] == "IMMUTABLE"
    assert repository.properties["ImageScanningConfiguration"] == {"ScanOnPush": True}

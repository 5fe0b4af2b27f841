"""Least privilege: one role per function, and for each function the complete list of what it may do."""

from typing import Any

import pytest

READ = {"BatchGetItem", "DescribeTable", "GetItem", "Query"}
WRITE = {"BatchWriteItem", "ConditionCheckItem", "DeleteItem", "PutItem", "UpdateItem"}
TABLES = {
    # function: tables that it reads and writes; members means GetItem and Query of project items in the app table
    "app-api": {"app", "runs"}, "app-task": {"app", "runs"}, "app-idle": {"app"},
    "model-api": {"model", "members"}, "model-task": {"model", "runs"},
    "cluster-api": {"cluster", "runs", "members"}, "cluster-task": {"cluster", "runs"},
    "cluster-on-event": {"cluster", "runs"},
    "sim-api": {"sim", "runs", "members"}, "sim-task": {"sim", "runs"}, "sim-daily": {"sim", "runs"},
    "metrics-api": {"metrics", "members"}, "metrics-on-event": {"metrics"}, "metrics-loader": set(),
    "core-relay": set(), "core-orphans": {"runs"},
}  # fmt: skip
POOL = "<foundry-test-people>"
BUCKET = "arn:<AWS::Partition>:s3:::foundry-test-metering-<AWS::AccountId>-<AWS::Region>"
BATCHES, QUARANTINE, CAPTURES = f"{BUCKET}/metering/*", f"{BUCKET}/quarantine/*", f"{BUCKET}/captures/*"
FILES = f"{BUCKET}/files/*"
KEY = "<Key961B73FD>"
FLOWS = (
    "delete-deployment", "deploy-model", "register-cluster", "sleep-deployment", "wake-deployment", "simulate",
    "recommend",
)  # fmt: skip
OTHER = {
    "app-api": {
        *((f"cognito-idp:{action}", POOL) for action in (
            "AdminAddUserToGroup", "AdminCreateUser", "AdminDeleteUser", "AdminDisableUser", "AdminEnableUser",
            "AdminGetUser", "AdminListGroupsForUser", "AdminRemoveUserFromGroup", "ListUsers",
        )),
        *(("states:StartExecution", f"<foundry-test-{flow}>") for flow in FLOWS),
        ("s3:PutObject", BATCHES), ("s3:PutObject", CAPTURES),
        ("s3:PutObject", FILES), ("s3:GetObject", FILES), ("s3:DeleteObject", FILES),
        ("kms:Decrypt", KEY), ("kms:GenerateDataKey", KEY),
    },
    "cluster-api": {
        *(("states:StartExecution", f"<foundry-test-{flow}>") for flow in FLOWS[:5]),
        ("kms:Decrypt", KEY), ("kms:GenerateDataKey", KEY),
    },
    "cluster-task": {("kms:Decrypt", KEY), ("kms:GenerateDataKey", KEY)},
    "cluster-on-event": {
        ("states:StartExecution", "<foundry-test-sleep-deployment>"),
        ("states:StartExecution", "<foundry-test-wake-deployment>"),
    },
    "sim-api": {
        ("states:StartExecution", "<foundry-test-simulate>"), ("states:StartExecution", "<foundry-test-recommend>"),
    },
    "sim-daily": {("states:StartExecution", "<foundry-test-recommend>")},
    "metrics-loader": {
        ("s3:GetObject", BATCHES), ("s3:PutObject", QUARANTINE), ("s3:ListBucket", "<MeteringFE114A7B>"),
    },
    "core-relay": {("events:PutEvents", "<foundry-test>")},
}  # fmt: skip
STREAM = {"DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"}
RECEIVE = {"ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl", "ReceiveMessage"}
POLLED = {name: f"foundry-test-{name}" for name in ("metrics-loader", "metrics-on-event", "cluster-on-event")}
FAILED_TO = {"core-relay": "foundry-test-relay-dlq", "core-orphans": "foundry-test-orphans-dlq",
             "sim-daily": "foundry-test-daily-dlq", "app-idle": "foundry-test-idle-dlq"}  # fmt: skip
# Statements whose resource is, or contains, a wildcard: nothing else may.
WILDCARDS = {
    "*": "vended logs of state machines are delivered with permissions that have no resource",
    BATCHES: "gateways name the batches",
    QUARANTINE: "named after the batches",
    CAPTURES: "gateways name the batches",
    FILES: "named by the ids of projects and files",
}


def expected(function: str) -> set[tuple[str, str]]:
    tables = TABLES[function]
    allowed = {("logs:CreateLogStream", f"</foundry/foundry-test-{function}>"),
               ("logs:PutLogEvents", f"</foundry/foundry-test-{function}>")}  # fmt: skip
    for table in tables - {"members"}:
        for resource in (f"<foundry-test-{table}>", f"<foundry-test-{table}>/index/gsi1"):
            allowed |= {(f"dynamodb:{action}", resource) for action in READ | WRITE}
    if "members" in tables:
        allowed |= {(f"dynamodb:{action}", "<foundry-test-app>") for action in ("GetItem", "Query")}
    if function in FAILED_TO:
        actions = ("GetQueueAttributes", "GetQueueUrl", "SendMessage")
        allowed |= {(f"sqs:{action}", f"<{FAILED_TO[function]}>") for action in actions}
    if function == "core-relay":
        streams = ("app", "cluster", "metrics", "model", "runs", "sim")
        allowed |= {(f"dynamodb:{action}", f"<foundry-test-{table}>") for action in STREAM for table in streams}
    if function in POLLED:
        allowed |= {(f"sqs:{action}", f"<{POLLED[function]}>") for action in RECEIVE}
    return allowed | OTHER.get(function, set())


@pytest.mark.parametrize("function", TABLES)
def test_a_function_may_do_exactly_this(stacks: Any, function: str) -> None:
    statements = stacks.statements(stacks.role_of(function))
    by_table_key = [s for s in statements if "kms:ViaService" in s.get("Condition", {}).get("StringEquals", {})]
    assert bool(by_table_key) == bool(TABLES[function] or function == "core-relay")
    allowed = {(a, r) for s in statements if s not in by_table_key for a in s["Action"] for r in s["Resource"]}
    assert allowed == expected(function)


def test_every_function_is_listed_and_has_its_own_role(stacks: Any) -> None:
    functions = stacks.all("AWS::Lambda::Function")
    assert {function.name for function in functions} == {f"foundry-test-{name}" for name in TABLES}
    roles = [stacks.target(function.stack, function.properties["Role"]) for function in functions]
    assert len({(role.stack, role.id) for role in roles}) == len(functions)


def test_other_domains_read_members_and_nothing_else_of_the_app_table(stacks: Any) -> None:
    for function in (name for name, tables in TABLES.items() if "members" in tables):
        found = [s for s in stacks.statements(stacks.role_of(function)) if "<foundry-test-app>" in s["Resource"]]
        assert [s["Action"] for s in found] == [["dynamodb:GetItem", "dynamodb:Query"]]
        assert found[0]["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["PROJECT#*"]}}


def test_the_table_key_opens_only_through_dynamodb(stacks: Any) -> None:
    via = "dynamodb.<AWS::Region>.<AWS::URLSuffix>"
    for role in stacks.all("AWS::IAM::Role"):
        for statement in stacks.statements(role):
            if "kms:ReEncryptTo" in statement["Action"]:
                assert stacks.text(role.stack, statement["Condition"]["StringEquals"]["kms:ViaService"]) == via


def test_wildcards_have_a_reason(stacks: Any) -> None:
    for role in stacks.all("AWS::IAM::Role"):
        for statement in stacks.statements(role):
            assert not [action for action in statement["Action"] if "*" in action], (role.id, statement)
            wild = {resource for resource in statement["Resource"] if "*" in resource}
            assert wild <= set(WILDCARDS), (role.id, wild)
            if "*" in wild:
                assert all(action.startswith("logs:") for action in statement["Action"]), (role.id, statement)


def test_no_managed_policies(stacks: Any) -> None:
    assert [role.id for role in stacks.all("AWS::IAM::Role") if "ManagedPolicyArns" in role.properties] == []


@pytest.mark.parametrize(
    ("flow", "invoked"),
    [("simulate", {"sim-task"}), ("recommend", {"sim-task", "cluster-task", "model-task"}),
     ("register-cluster", {"cluster-task"}),
     ("deploy-model", {"cluster-task", "app-task"}), ("delete-deployment", {"cluster-task", "app-task"})],
)  # fmt: skip
def test_a_flow_invokes_only_its_tasks(stacks: Any, flow: str, invoked: set[str]) -> None:
    machine = stacks.one("AWS::StepFunctions::StateMachine", f"foundry-test-{flow}")
    role = stacks.target(machine.stack, machine.properties["RoleArn"])
    allowed = {(action, resource) for action, resource in stacks.allowed(role) if not action.startswith("logs:")}
    assert allowed == {("lambda:InvokeFunction", f"<foundry-test-{name}>") for name in invoked}

"""A state machine from its text in statemachines/."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from stacks.config import Config
from stacks.constructs.checks import accept

DEFINITIONS = Path(__file__).parents[2] / "statemachines"
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


class Flow(Construct):
    """State machine `foundry-<stage>-<kind>`; may invoke the functions its text names, and nothing else.

    Raises KeyError at synthesis when the text names a function that was not given.
    """

    def __init__(
        self, scope: Construct, kind: str, *, config: Config, functions: Mapping[str, lambda_.IFunction]
    ) -> None:
        super().__init__(scope, kind)
        self.kind = kind
        text = (DEFINITIONS / f"{kind}.asl.json").read_text()
        used = {name: functions[name] for name in sorted(set(_PLACEHOLDER.findall(text)))}
        name = config.name(kind.replace("_", "-"))
        self.machine = sfn.StateMachine(
            self, "Machine", state_machine_name=name,
            definition_body=sfn.DefinitionBody.from_string(json.dumps(json.loads(text), separators=(",", ":"))),
            definition_substitutions={name: function.function_arn for name, function in used.items()},
            logs=sfn.LogOptions(
                destination=logs.LogGroup(
                    self, "Logs", log_group_name=f"/aws/vendedlogs/states/{name}",
                    retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY,
                ),
                level=sfn.LogLevel.ALL, include_execution_data=False,
            ),
        )  # fmt: skip
        invoke = iam.PolicyStatement(
            actions=["lambda:InvokeFunction"], resources=[function.function_arn for function in used.values()]
        )
        self.machine.add_to_role_policy(invoke)
        accept(self, "SF2", "Traces are billed per state; the run record and the execution history show the same.")
        accept(self, "IAM5[Resource::*]", "Log delivery of vended logs has no resource-level permissions.")

"""The synthesized templates as one set of resources, with references followed across stacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

NAMES = ("FunctionName", "TableName", "StateMachineName", "QueueName", "BucketName", "UserPoolName", "RepositoryName",
         "LogGroupName", "Name", "TopicName", "RoleName", "RuleName")  # fmt: skip


@dataclass(frozen=True)
class Resource:
    stack: str
    id: str
    type: str
    properties: dict[str, Any]

    @property
    def name(self) -> str:
        """Physical name where there is one that is plain text, else the logical id."""
        return next((v for n in NAMES if isinstance(v := self.properties.get(n), str)), self.id)


@dataclass(frozen=True)
class Stacks:
    templates: dict[str, Any]

    def all(self, *types: str) -> list[Resource]:
        return [resource for resource in self._resources() if not types or resource.type in types]

    def _resources(self) -> Iterator[Resource]:
        for stack, template in self.templates.items():
            for id_, resource in template["Resources"].items():
                yield Resource(stack, id_, resource["Type"], resource.get("Properties", {}))

    def one(self, type_: str, name: str) -> Resource:
        (found,) = [resource for resource in self.all(type_) if resource.name == name]
        return found

    def target(self, stack: str, value: Any) -> Resource:
        """The resource that a Ref, GetAtt or import of another stack's export means."""
        if "Fn::ImportValue" in value:
            exporter, value = self._exports()[value["Fn::ImportValue"]]
            return self.target(exporter, value)
        id_ = value.get("Ref") or value["Fn::GetAtt"][0]
        resource = self.templates[stack]["Resources"][id_]
        return Resource(stack, id_, resource["Type"], resource.get("Properties", {}))

    def text(self, stack: str, value: Any) -> str:
        """A property as text: `<name>` stands for what another resource is called or has as its ARN."""
        if isinstance(value, str):
            return value
        if "Fn::Join" in value:
            glue, parts = value["Fn::Join"]
            return str(glue).join(self.text(stack, part) for part in parts)
        if str(value.get("Ref", "")).startswith("AWS::"):
            return f"<{value['Ref']}>"
        return f"<{self.target(stack, value).name}>"

    def _exports(self) -> dict[str, tuple[str, Any]]:
        return {
            output["Export"]["Name"]: (stack, output["Value"])
            for stack, template in self.templates.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def statements(self, role: Resource) -> list[dict[str, Any]]:
        """Everything that a role may do, from the policies attached to it, with references as text."""
        policies = [
            policy for policy in self.all("AWS::IAM::Policy")
            if policy.stack == role.stack and {"Ref": role.id} in policy.properties["Roles"]
        ]  # fmt: skip
        return [
            {**statement, "Action": _list(statement["Action"]),
             "Resource": [self.text(role.stack, one) for one in _list(statement["Resource"])]}
            for policy in policies for statement in policy.properties["PolicyDocument"]["Statement"]
        ]  # fmt: skip

    def allowed(self, role: Resource) -> set[tuple[str, str]]:
        """(action, resource) pairs of a role."""
        return {(a, r) for s in self.statements(role) for a in s["Action"] for r in s["Resource"]}

    def role_of(self, function: str) -> Resource:
        resource = self.one("AWS::Lambda::Function", f"foundry-test-{function}")
        return self.target(resource.stack, resource.properties["Role"])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.fixture(scope="session")
def stacks(templates: dict[str, Any]) -> Stacks:
    return Stacks(templates)

"""What may differ between deployments: CDK context values (`-c name=value`), read in one place."""

from dataclasses import dataclass

from constructs import Node

# Behaviour that `cdk init` would switch on in cdk.json; kept here so that every way to synthesize has the same.
FLAGS = {
    "@aws-cdk/aws-iam:minimizePolicies": True,
    "@aws-cdk/core:validateSnapshotRemovalPolicy": True,
    "@aws-cdk/aws-lambda:recognizeLayerVersion": True,
    "@aws-cdk/core:checkSecretUsage": True,
}


@dataclass(frozen=True)
class Config:
    stage: str = "dev"
    disposable: bool = False  # True: `cdk destroy` deletes the data as well
    snap_start: bool = False  # cached snapshots of Python functions are billed while idle, so it is a choice
    alarm_email: str = ""  # given: the alarms stack exists
    web_origins: tuple[str, ...] = ("http://localhost:4700",)  # may call the API from a browser, may receive a login
    clickhouse_dsn: str = ""  # may be a `{{resolve:secretsmanager:…}}` reference

    def name(self, part: str) -> str:
        return f"foundry-{self.stage}-{part}"


def from_context(node: Node) -> Config:
    """Config of this synthesis. Lists are comma-separated; flags are `true` or `false`."""
    default = Config()
    return Config(
        stage=_text(node, "stage", default.stage),
        disposable=_flag(node, "disposable"),
        snap_start=_flag(node, "snap_start"),
        alarm_email=_text(node, "alarm_email", ""),
        web_origins=tuple(_text(node, "web_origins", ",".join(default.web_origins)).split(",")),
        clickhouse_dsn=_text(node, "clickhouse_dsn", ""),
    )


def _text(node: Node, name: str, default: str) -> str:
    return str(node.try_get_context(name) or default)


def _flag(node: Node, name: str) -> bool:
    return str(node.try_get_context(name)).lower() == "true"

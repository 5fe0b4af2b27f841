"""The only module that knows ministack (pinned exactly): settings, patches, its state as plain data.

ministack reads its settings when it is imported, so there is one engine in a process and :func:`start` imports it.
Each patch answers one quirk of version 1.5.33; ``tests/integration/local/emulator`` holds a contract test for each:

``_execute_function_warm``      runs a Python function in a subprocess and reports every exception as
                                ``Runtime.HandlerError``, so that no ASL Catch can match its name → our executor
``_snapstart_provision_...``    starts such a subprocess when a version is published → the version is active at once
``_emit_lambda_logs/_metrics``  keep every log line and metric in memory for ever → ours go to the log file
``_docker_socket_present``      would remove other people's containers where there is a Docker daemon → never
stream records                  are not saved although the read positions are, so that after a restart a stream is
                                deaf until it has as many records as before → saved with the state
"""

import copy
import importlib
import io
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from foundry_local.errors import PlatformError
from foundry_local.pins import EMULATOR_VERSION

from .functions import Executor, Function

ACCOUNT_ID = "000000000000"
REGION = "us-east-1"
# Imported at the start because a request must not wait for it, and because a restored state needs all of them.
_SERVICES = (
    "apigateway", "cloudformation", "cloudwatch", "cloudwatch_logs", "cognito", "dynamodb", "dynamodb_streams",
    "eventbridge", "iam", "kms", "lambda_svc", "s3", "scheduler", "sns", "sqs", "ssm", "stepfunctions", "sts",
)  # fmt: skip
_STREAMS = "dynamodb.stream_records"

ASGIApp = Callable[..., Any]


class EngineError(PlatformError):
    """The emulator cannot start; the message says why."""


class Engine:
    """ministack in this process: its ASGI application, and its state as data that JSON can hold."""

    def __init__(self, executor: Executor) -> None:
        self._app: Any = importlib.import_module("ministack.app")
        self._persistence: Any = importlib.import_module("ministack.core.persistence")
        for name in _SERVICES:
            self._app._get_module(name)
        self._patch(executor)

    @property
    def asgi(self) -> ASGIApp:
        app: ASGIApp = self._app.app
        return app

    def busy(self) -> bool:
        """True while a state machine runs: its progress is state that no request announces."""
        executions = self._app._get_module("stepfunctions")._executions.all_values()
        return any(execution["status"] == "RUNNING" for execution in list(executions))

    def dump(self) -> dict[str, Any]:
        """Every service's state; call it where nothing else runs (a fork)."""
        states = {name: get_state() for name, get_state in self._app._build_persistence_save_dict().items()}
        kept = {name: state for name, state in states.items() if state}
        return {"emulator": EMULATOR_VERSION, "services": kept, _STREAMS: self._dump_streams()}

    def encode(self, value: Any) -> Any:
        """JSON default for what :meth:`dump` returns."""
        return self._persistence._json_default(value)

    def decode(self, value: dict[str, Any]) -> Any:
        """JSON object hook, the inverse of :meth:`encode`."""
        return self._persistence._json_object_hook(value)

    def restore(self, state: dict[str, Any]) -> None:
        """Load what :meth:`dump` returned. Executions that were running are failed (``States.ServiceRestart``)."""
        if state.get("emulator") != EMULATOR_VERSION:
            found = state.get("emulator")
            raise EngineError(f"the state is of emulator {found}, this is {EMULATOR_VERSION}: take a new --state")
        self._restore_streams(state[_STREAMS])
        for name, module in self._app._state_map.items():
            if name in state["services"]:
                self._app._get_module(module).load_persisted_state(state["services"][name])

    def _patch(self, executor: Executor) -> None:
        functions = self._app._get_module("lambda_svc")

        in_subprocess = functions._execute_function_warm

        def execute(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
            config = func.get("config") or func
            if not config["Runtime"].startswith("python"):
                answer: dict[str, Any] = in_subprocess(func, event, request_id)
                return answer
            outcome = executor.invoke(_function(config, func.get("code_zip")), event, request_id)
            return {"body": outcome.payload, "error": outcome.failed, "log": outcome.log}

        def shared() -> dict[str, str]:
            configs = [record.get("config") or record for record in functions._functions.all_values()]
            return {name: value for config in configs for name, value in _variables(config).items()}

        executor.shared = shared
        functions._execute_function_warm = execute
        functions._snapstart_provision_version_async = _activate
        functions._emit_lambda_logs = _ignore
        functions._emit_lambda_metrics = _ignore
        self._app._docker_socket_present = lambda: False

    def _dump_streams(self) -> dict[str, Any]:
        """Records that some event source mapping has yet to read, and the position they start at."""
        dynamodb, functions = self._app._get_module("dynamodb"), self._app._get_module("lambda_svc")
        read = _positions(functions)
        streams: dict[str, Any] = {"counter": dynamodb._stream_seq_counter, "tables": []}
        for (account, region, table), records in dynamodb._stream_records.all_items():
            trimmed = dynamodb._stream_trimmed.get_scoped(account, region, table, 0)
            start = min(read.get(table, [trimmed]))
            unread = records[max(0, start - trimmed) :]
            streams["tables"].append([account, region, table, max(start, trimmed), copy.deepcopy(unread)])
        return streams

    def _restore_streams(self, streams: dict[str, Any]) -> None:
        dynamodb = self._app._get_module("dynamodb")
        dynamodb._stream_seq_counter = streams["counter"]
        for account, region, table, trimmed, records in streams["tables"]:
            dynamodb._stream_records.set_scoped(account, region, table, records)
            dynamodb._stream_trimmed.set_scoped(account, region, table, trimmed)


def start(port: int, state: Path, executor: Executor) -> Engine:
    """Import ministack with our settings; ``state`` is for what it keeps in files (keys, objects, code)."""
    if os.environ.get("STATE_DIR", str(state)) != str(state):
        raise EngineError("an emulator with another state directory already runs in this process")
    os.environ.update(
        BIND_HOST="127.0.0.1",
        GATEWAY_PORT=str(port),
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_REGION=REGION,
        MINISTACK_ACCOUNT_ID=ACCOUNT_ID,
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        PERSIST_STATE="0",
        STATE_DIR=str(state),
        S3_PERSIST="1",
        S3_DATA_DIR=str(state / "s3"),
        LAMBDA_EXECUTOR="local",
        LOG_LEVEL="WARNING",
    )
    (state / "s3").mkdir(parents=True, exist_ok=True)
    return Engine(executor)


def _variables(config: dict[str, Any]) -> dict[str, str]:
    return (config.get("Environment") or {}).get("Variables") or {}


def _function(config: dict[str, Any], code: bytes | None) -> Function:
    return Function(
        arn=config["FunctionArn"],
        name=config["FunctionName"],
        handler=config["Handler"],
        timeout_s=float(config.get("Timeout", 3)),
        memory_mb=int(config.get("MemorySize", 128)),
        version=config.get("Version", "$LATEST"),
        environment=tuple(sorted(_variables(config).items())),
        source=_source(config["Handler"], code) if code else None,
    )


@cache
def _source(handler: str, code: bytes) -> str | None:
    """The handler's module when the package holds it; ours hold none, they run from the checkout."""
    path = handler.rpartition(".")[0].replace(".", "/") + ".py"
    with zipfile.ZipFile(io.BytesIO(code)) as package:
        return package.read(path).decode() if path in package.namelist() else None


def _positions(functions: Any) -> dict[str, list[int]]:
    """Read positions of the event source mappings, by table name."""
    positions: dict[str, list[int]] = {}
    for _scope, mapping in functions._esms.all_items():
        arn = mapping.get("EventSourceArn", "")
        if mapping["UUID"] in functions._dynamodb_stream_positions and ":table/" in arn:
            table = arn.split(":table/")[1].split("/")[0]
            positions.setdefault(table, []).append(functions._dynamodb_stream_positions[mapping["UUID"]])
    return positions


def _activate(name: str, version: dict[str, Any]) -> None:
    version["config"].update(State="Active", StateReason="", StateReasonCode="", LastUpdateStatus="Successful")


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    return None

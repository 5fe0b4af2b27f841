"""Runs Lambda handlers in this process: execution environments, the context object, timeouts and named errors.

As in Lambda, one environment (here a thread with its own event loop and ``os.environ``) serves one invocation at a
time and is kept warm for the next; concurrent invocations get environments of their own, so a long task never makes
an API call wait. A timed-out environment is abandoned: its thread cannot be killed, but nothing waits for it, and
what it would still write is refused by the attempt number that every task carries.

Where Lambda gives each environment a process, ours share one, and so share what modules keep. Hence two rules: a
function reads its own variables over those of all functions, so that what a module keeps from its first reader is
right for the next one; and batches of records (streams, queues) run one at a time per function, because batch
processors keep the state of the batch at hand.
"""

import asyncio
import importlib
import json
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from types import ModuleType
from typing import Any

from . import environ

log = logging.getLogger(__name__)

RESPONSE_LIMIT_BYTES = 6 * 1024 * 1024
IDLE_SECONDS = 60.0
Handler = Callable[[Any, "LambdaContext"], Any]


@dataclass(frozen=True)
class Function:
    """What an invocation needs to know; ``handler`` is the import path, as in the template."""

    arn: str
    name: str
    handler: str
    timeout_s: float = 3.0
    memory_mb: int = 128
    version: str = "$LATEST"
    environment: tuple[tuple[str, str], ...] = ()
    # Source of a handler that is not part of the checkout (CDK writes some into its templates).
    source: str | None = field(default=None, repr=False)

    @property
    def variables(self) -> dict[str, str]:
        return {
            **dict(self.environment),
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": self.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "_HANDLER": self.handler,
        }


@dataclass(frozen=True)
class Outcome:
    """``payload`` is the handler's JSON result, or Lambda's error document when ``failed``."""

    payload: Any
    failed: bool = False
    log: str = ""


class LambdaContext:
    """The context argument of a handler, with the attributes that Lambda documents."""

    identity = None
    client_context = None

    def __init__(self, function: Function, request_id: str) -> None:
        self._deadline = time.monotonic() + function.timeout_s
        self.function_name, self.function_version = function.name, function.version
        self.invoked_function_arn, self.aws_request_id = function.arn, request_id
        self.memory_limit_in_mb = function.memory_mb
        self.log_group_name, self.log_stream_name = f"/aws/lambda/{function.name}", request_id

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))


@dataclass
class _Job:
    event: Any
    request_id: str
    outcome: "Future[Outcome]" = field(default_factory=Future)


class _Environment(threading.Thread):
    """One warm execution environment of one function."""

    def __init__(
        self, function: Function, shared: Mapping[str, str], on_idle: Callable[["_Environment"], bool]
    ) -> None:
        super().__init__(daemon=True, name=f"lambda-{function.name}")
        self.function, self._shared, self._on_idle = function, shared, on_idle
        self.jobs: queue.Queue[_Job | None] = queue.Queue()

    def run(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with environ.scope({**self._shared, **self.function.variables}):
            while (job := self.jobs.get()) is not None:
                outcome = _invoke(self.function, job)
                again = self._on_idle(self)
                job.outcome.set_result(outcome)
                if not again:
                    break
        loop.close()


class Executor:
    """Invokes functions; thread-safe. ``on_done`` is called after every invocation."""

    def __init__(self, on_done: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Function, list[tuple[float, _Environment]]] = {}
        self._abandoned: set[_Environment] = set()
        self._batches: dict[str, threading.Lock] = {}
        self._on_done, self._delivering = on_done, threading.Event()
        self.shared: Callable[[], Mapping[str, str]] = dict

    def invoke(self, function: Function, event: Any, request_id: str) -> Outcome:
        """Run the handler on a copy of ``event``; never raises for what the handler does."""
        with self._turn(function, event):
            outcome = self._run(function, event, request_id)
        self._on_done()
        if outcome.failed:
            error = outcome.payload
            log.warning("%s: %s: %s", function.name, error["errorType"], error["errorMessage"])
            log.info("%s", outcome.log)
        return outcome

    def _turn(self, function: Function, event: Any) -> AbstractContextManager[Any]:
        if not (isinstance(event, dict) and "Records" in event):
            return nullcontext()
        self._delivering.wait()
        with self._lock:
            return self._batches.setdefault(function.arn, threading.Lock())

    def _run(self, function: Function, event: Any, request_id: str) -> Outcome:
        environment, job = self._lease(function), _Job(json.loads(json.dumps(event)), request_id)
        environment.jobs.put(job)
        try:
            return job.outcome.result(timeout=function.timeout_s)
        except TimeoutError:
            return self._abandon(environment, request_id)

    def deliver(self) -> None:
        """Let batches of records through; until then they wait, since they may be for functions that are to change."""
        self._delivering.set()

    def close(self) -> None:
        """Let idle environments end; running ones end with their invocation."""
        with self._lock:
            idle = [e for environments in self._idle.values() for _, e in environments]
            self._idle.clear()
        for environment in idle:
            environment.jobs.put(None)

    def _lease(self, function: Function) -> _Environment:
        with self._lock:
            warm = self._idle.setdefault(function, [])
            if warm:
                return warm.pop()[1]
        environment = _Environment(function, self.shared(), self._release)
        environment.start()
        return environment

    def _release(self, environment: _Environment) -> bool:
        """Called by an environment that finished; False tells it to end."""
        now = time.monotonic()
        with self._lock:
            if environment in self._abandoned:
                self._abandoned.discard(environment)
                return False
            warm = self._idle.setdefault(environment.function, [])
            stale = [e for at, e in warm if now - at > IDLE_SECONDS]
            warm[:] = [(at, e) for at, e in warm if now - at <= IDLE_SECONDS]
            warm.append((now, environment))
        for old in stale:
            old.jobs.put(None)
        return True

    def _abandon(self, environment: _Environment, request_id: str) -> Outcome:
        with self._lock:
            self._abandoned.add(environment)
        seconds = environment.function.timeout_s
        message = f"{request_id} Task timed out after {seconds:.2f} seconds"
        return Outcome({"errorType": "Sandbox.Timedout", "errorMessage": message}, failed=True)


def _invoke(function: Function, job: _Job) -> Outcome:
    try:
        handler = _load(function)
        result = handler(job.event, LambdaContext(function, job.request_id))
        return Outcome(_marshal(result))
    except _RuntimeFault as fault:
        return _error(fault.error_type, str(fault), job.request_id, "")
    except BaseException as error:  # what a handler raises, SystemExit too, is the invocation's result
        error_type = "Runtime.ExitError" if isinstance(error, SystemExit) else type(error).__name__
        return _error(error_type, str(error), job.request_id, traceback.format_exc())


class _RuntimeFault(Exception):
    """A fault of the handler's packaging rather than of its code."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


def _load(function: Function) -> Handler:
    module_name, _, attribute = function.handler.rpartition(".")
    try:
        module = _module(function, module_name)
    except ImportError as error:
        log.exception("cannot import %s", module_name)
        message = f"Unable to import module '{module_name}': {error}"
        raise _RuntimeFault("Runtime.ImportModuleError", message) from error
    try:
        found: Handler = getattr(module, attribute)
    except AttributeError as error:
        message = f"Handler '{attribute}' missing on module '{module_name}'"
        raise _RuntimeFault("Runtime.HandlerNotFound", message) from error
    return found


def _module(function: Function, name: str) -> ModuleType:
    return importlib.import_module(name) if function.source is None else _from_source(name, function.source)


@cache
def _from_source(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102 (the function's own code, as deployed)
    return module


def _marshal(result: Any) -> Any:
    try:
        text = json.dumps(result, default=_decimal)
    except (TypeError, ValueError) as error:
        raise _RuntimeFault("Runtime.MarshalError", f"Unable to marshal response: {error}") from error
    if len(text) > RESPONSE_LIMIT_BYTES:
        raise _RuntimeFault("Function.ResponseSizeTooLarge", "Response payload size exceeded maximum of 6 MB.")
    return json.loads(text)


def _decimal(value: Any) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _error(error_type: str, message: str, request_id: str, trace: str) -> Outcome:
    document = {
        "errorType": error_type,
        "errorMessage": message,
        "requestId": request_id,
        "stackTrace": trace.splitlines(),
    }
    return Outcome(document, failed=True, log=trace)

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from foundry_local.emulator import environ
from foundry_local.emulator.functions import Executor, Function

SOURCE = """
import asyncio, os, threading, time
from decimal import Decimal
class OutOfStock(Exception): pass
def echo(event, context): return event
def mutate(event, context): event["list"].append(1)
def named(event, context): raise OutOfStock("no GPU left")
def leaves(event, context): raise SystemExit(3)
def odd(event, context): return {"value": object()}
def number(event, context): return {"value": Decimal("1.5")}
def huge(event, context): return "x" * (7 * 1024 * 1024)
def environment(event, context): return [os.environ.get(name) for name in event]
def thread(event, context): return threading.get_ident()
def sleeps(event, context): time.sleep(event); return "late"
meeting = threading.Barrier(8, timeout=30)
def meets(event, context): return meeting.wait()
def loops(event, context): return asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, "ran"))
def about(event, context): return [context.function_name, context.aws_request_id, context.invoked_function_arn,
                                   context.memory_limit_in_mb, context.get_remaining_time_in_millis()]
running = most = 0
def counts(event, context):
    global running, most
    running += 1; most = max(most, running); time.sleep(0.02); running -= 1
    return most
"""


@pytest.fixture(autouse=True)
def _scoped_environ() -> Iterator[None]:
    process = os.environ._data  # type: ignore[attr-defined]
    environ.install()
    yield
    os.environ._data = process  # type: ignore[attr-defined]


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor()
    executor.deliver()
    yield executor
    executor.close()


def function(name: str, **more: Any) -> Function:
    defaults: dict[str, Any] = {"arn": f"arn:{name}", "name": name, "handler": f"index.{name}", "source": SOURCE}
    return Function(**{**defaults, **more})


def call(executor: Executor, name: str, event: Any = None, **more: Any) -> Any:
    outcome = executor.invoke(function(name, **more), event, "r1")
    assert not outcome.failed, outcome.payload
    return outcome.payload


def fails(executor: Executor, name: str, event: Any = None, **more: Any) -> dict[str, Any]:
    outcome = executor.invoke(function(name, **more), event, "r1")
    assert outcome.failed
    return dict(outcome.payload)


def test_returns_what_the_handler_returns_as_json(executor: Executor) -> None:
    assert call(executor, "echo", {"a": [1, None, "é"]}) == {"a": [1, None, "é"]}
    assert call(executor, "number") == {"value": float(Decimal("1.5"))}


def test_a_handler_cannot_change_its_callers_event(executor: Executor) -> None:
    event: dict[str, list[int]] = {"list": []}
    call(executor, "mutate", event)
    assert event == {"list": []}


def test_an_exception_keeps_its_class_name(executor: Executor) -> None:
    error = fails(executor, "named")
    assert (error["errorType"], error["errorMessage"], error["requestId"]) == ("OutOfStock", "no GPU left", "r1")
    assert any("OutOfStock" in line for line in error["stackTrace"])


@pytest.mark.parametrize(
    ("name", "error_type"),
    [
        ("leaves", "Runtime.ExitError"),
        ("odd", "Runtime.MarshalError"),
        ("huge", "Function.ResponseSizeTooLarge"),
        ("absent", "Runtime.HandlerNotFound"),
    ],
)
def test_faults_have_the_names_that_lambda_gives_them(executor: Executor, name: str, error_type: str) -> None:
    assert fails(executor, name)["errorType"] == error_type


def test_a_handler_that_cannot_be_imported_says_which(executor: Executor) -> None:
    error = fails(executor, "x", handler="functions.nowhere.handler.api", source=None)
    assert error["errorType"] == "Runtime.ImportModuleError" and "functions.nowhere" in error["errorMessage"]


def test_a_handler_is_found_by_its_import_path(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_domain").mkdir()
    (tmp_path / "some_domain" / "handler.py").write_text("def api(event, context): return event['n'] + 1")
    monkeypatch.syspath_prepend(tmp_path)
    assert call(executor, "x", {"n": 1}, handler="some_domain.handler.api", source=None) == 2


def test_a_timeout_is_reported_and_its_environment_is_not_used_again(executor: Executor) -> None:
    error = fails(executor, "sleeps", 0.3, timeout_s=0.05)
    assert error["errorType"] == "Sandbox.Timedout" and "0.05 seconds" in error["errorMessage"]
    assert call(executor, "sleeps", 0, timeout_s=0.05) == "late"


def test_an_environment_is_kept_warm(executor: Executor) -> None:
    assert call(executor, "thread") == call(executor, "thread") != threading.get_ident()


def test_concurrent_calls_do_not_wait_for_each_other(executor: Executor) -> None:
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: call(executor, "meets"), range(8)))
    assert sorted(places) == list(range(8))


@pytest.mark.parametrize(("event", "most"), [({"Records": []}, 1), ({"other": []}, 2)])
def test_batches_of_a_function_run_one_at_a_time(executor: Executor, event: Any, most: int) -> None:
    source = SOURCE + f"\n# {json.dumps(event)}"
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(call(executor, "counts", event, source=source))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) == 1 if most == 1 else max(seen) >= most


def test_reads_its_own_variables_over_those_of_all(executor: Executor) -> None:
    executor.shared = lambda: {"A": "shared", "B": "shared"}
    own = call(executor, "environment", ["A", "B", "AWS_LAMBDA_FUNCTION_NAME"], environment=(("A", "own"),))
    assert own == ["own", "shared", "environment"]


def test_has_an_event_loop(executor: Executor) -> None:
    assert call(executor, "loops") == "ran"
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_the_context_tells_who_and_how_long(executor: Executor) -> None:
    name, request_id, arn, memory_mb, remaining_ms = call(executor, "about", timeout_s=5.0, memory_mb=512)
    assert (name, request_id, arn, memory_mb) == ("about", "r1", "arn:about", 512)
    assert 4_000 < remaining_ms <= 5_000


def test_tells_when_an_invocation_is_over() -> None:
    done: list[None] = []
    executor = Executor(on_done=lambda: done.append(None))
    call(executor, "echo")
    fails(executor, "named")
    assert len(done) == 2


def test_batches_wait_until_they_are_delivered_and_calls_do_not() -> None:
    executor, seen = Executor(), []
    waiting = threading.Thread(target=lambda: seen.append(call(executor, "echo", {"Records": []})))
    waiting.start()
    assert call(executor, "echo", {"other": 1}) == {"other": 1}
    assert waiting.is_alive() and seen == []
    executor.deliver()
    waiting.join(5)
    assert seen == [{"Records": []}]
    executor.close()

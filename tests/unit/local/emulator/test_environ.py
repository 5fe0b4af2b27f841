import contextvars
import os
import threading
from collections.abc import Iterator

import pytest
from foundry_local.emulator import environ


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    process = os.environ._data  # type: ignore[attr-defined]
    environ.install()
    environ.install()
    yield
    os.environ._data = process  # type: ignore[attr-defined]


def test_a_scope_adds_to_the_process_environment_and_leaves_nothing() -> None:
    os.environ["SHARED"] = "yes"
    with environ.scope({"OWN": "a"}):
        assert (os.environ["SHARED"], os.getenv("OWN")) == ("yes", "a")
        os.environ["WRITTEN"] = "inside"
        del os.environ["SHARED"]
        assert "SHARED" not in os.environ and "OWN" in dict(os.environ)
    assert os.environ["SHARED"] == "yes"
    assert not {"OWN", "WRITTEN"} & set(os.environ)
    del os.environ["SHARED"]


def test_a_thread_with_a_copied_context_shares_the_scope_and_another_does_not() -> None:
    seen = {}

    def look(name: str) -> None:
        seen[name] = os.getenv("OWN")

    with environ.scope({"OWN": "a"}):
        inside = contextvars.copy_context()
    for name, run in {"copied": inside.run, "empty": contextvars.Context().run}.items():
        thread = threading.Thread(target=run, args=(look, name))
        thread.start()
        thread.join()
    assert seen == {"copied": "a", "empty": None}


def test_two_functions_at_once_read_their_own_values() -> None:
    barrier, seen = threading.Barrier(2), {}

    def work(name: str) -> None:
        with environ.scope({"OWN": name}):
            barrier.wait()
            seen[name] = os.environ["OWN"]
            barrier.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "a", "b": "b"}


def test_a_scope_inside_a_scope_starts_from_the_process() -> None:
    with environ.scope({"OUTER": "1"}), environ.scope({"INNER": "2"}):
        assert os.getenv("OUTER") is None and os.getenv("INNER") == "2"

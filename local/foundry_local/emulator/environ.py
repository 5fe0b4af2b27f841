"""An environment of its own for each function, though all run in one process.

``os.environ`` keeps its variables in a private mapping; we put one in front of it that asks a context variable
first. A thread (and every asyncio task and worker thread that copies its context) then reads the environment of
the function that it works for, through ``os.environ``, ``os.getenv``, boto3 and pydantic-settings alike.
Threads that a handler starts without copying its context see the platform's environment.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

_scope: ContextVar[dict[bytes, bytes] | None] = ContextVar("function_environment", default=None)


class _ScopedEnviron(MutableMapping[bytes, bytes]):
    def __init__(self, process: MutableMapping[bytes, bytes]) -> None:
        self._process = process

    @property
    def _active(self) -> MutableMapping[bytes, bytes]:
        scope = _scope.get()
        return self._process if scope is None else scope

    def __getitem__(self, key: bytes) -> bytes:
        return self._active[key]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._active[key] = value

    def __delitem__(self, key: bytes) -> None:
        del self._active[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._active))

    def __len__(self) -> int:
        return len(self._active)


def install() -> None:
    """Put the scoped mapping in front of ``os.environ``; a second call does nothing."""
    environ: object = os.environ
    process = environ._data  # type: ignore[attr-defined]
    if not isinstance(process, _ScopedEnviron):
        environ._data = _ScopedEnviron(process)  # type: ignore[attr-defined]


@contextmanager
def scope(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside the block, ``os.environ`` is the process's environment with ``variables`` on top; nothing leaks out."""
    own = {os.fsencode(k): os.fsencode(v) for k, v in {**_process_environment(), **variables}.items()}
    token = _scope.set(own)
    try:
        yield
    finally:
        _scope.reset(token)


def _process_environment() -> dict[str, str]:
    token = _scope.set(None)
    try:
        return dict(os.environ)
    finally:
        _scope.reset(token)

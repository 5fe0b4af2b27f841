"""Runs a module as ``__main__`` for as long as the parent lives: ``python -m foundry_local.child MODULE [ARG…]``.

The parent holds the other end of our standard input and never writes to it. When it ends, however it ends, we read
end of file and stop: no orphan keeps a port after ``kill -9``.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_S = 3.0


def _follow_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_follow_parent, daemon=True, name="follow-parent").start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""Runs the emulator until SIGTERM: STATE PORT [--closed]."""

import signal
import sys
import threading
from pathlib import Path

from foundry_local.emulator import Emulator

if __name__ == "__main__":
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    emulator = Emulator(Path(sys.argv[1]), int(sys.argv[2]))
    emulator.start()
    if "--closed" not in sys.argv:
        emulator.open()
    print("ready", flush=True)
    stopping.wait()
    emulator.stop()

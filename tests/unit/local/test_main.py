"""What the platform's process does before anything else."""

import subprocess
import sys

CODE = """
import os
from foundry_local.__main__ import keep_forks_safe
keep_forks_safe()
import numpy
square = numpy.ones((600, 600))
square @ square
print(len(os.listdir("/proc/self/task")))
"""


def test_numpy_starts_no_threads_that_a_fork_would_wait_for() -> None:
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "1"

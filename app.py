"""Entry point of the CDK CLI (`cdk.json`), and of anyone who wants the cloud assembly without the CLI:

CDK_OUTDIR=out CDK_CONTEXT_JSON='{"stage": "local", "aws:cdk:bundling-stacks": []}' python app.py
"""

from stacks.application import build

build().app.synth()

"""Code packages as they are shipped. Wheels come from the network, so layers with a lock file are not filled here."""

import importlib.util
import sys
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_

from stacks.constructs.code import LAYERS, ROOT, domain_code, fill_layer

ON_3_13 = sys.version_info[:2] == (3, 13)  # elsewhere no byte code is shipped


def test_a_domain_is_bundled_under_the_path_of_its_handlers(tmp_path: Path) -> None:
    """A synthesis in which CDK calls our Python back for the code."""
    app = cdk.App(outdir=str(tmp_path))
    lambda_.Function(
        cdk.Stack(app, "only"), "Function", code=domain_code("model"), handler="functions.model.handler.api",
        runtime=lambda_.Runtime.PYTHON_3_13,
    )  # fmt: skip
    app.synth()
    (asset,) = tmp_path.glob("asset.*")
    source = asset / "functions" / "model" / "handler.py"
    assert source.read_text() == (ROOT / "functions" / "model" / "handler.py").read_text()
    assert {path.name for path in asset.iterdir()} == {"functions"}
    assert_unchecked(source, "/var/task/functions/model/handler.py")


def test_layer_of_facts_is_importable_source_with_byte_code(tmp_path: Path) -> None:
    fill_layer(LAYERS["sim"], tmp_path)
    target = tmp_path / "python" / "foundry_sim"
    assert (target / "facts" / "devices.py").is_file() and (target / "data" / "devices.json").is_file()
    assert not [path for path in target.rglob("*") if path.name.startswith(".")]
    assert_unchecked(target / "predict.py", "/opt/python/foundry_sim/predict.py")


def test_the_facts_and_models_of_the_simulator_stay_small(tmp_path: Path) -> None:
    """With NumPy (51 MB) and the base layer (49 MB) they are what a simulation loads when it starts cold."""
    fill_layer(LAYERS["sim"], tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 10_000_000


def assert_unchecked(source: Path, seen_as: str) -> None:
    """Byte code that is taken without a look at the source, and that names the file as Lambda sees it."""
    if not ON_3_13:
        return
    cached = Path(importlib.util.cache_from_source(str(source)))
    flags = int.from_bytes(cached.read_bytes()[4:8], "little")
    assert flags == 0b01  # hash-based, not checked (PEP 552)
    assert seen_as.encode() in cached.read_bytes()

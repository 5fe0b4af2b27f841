"""`foundry sim models|devices|layouts|predict|calibrate|train|validate`: the simulator offline, no platform needed."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from foundry_cli.catalogue import devices, models
from foundry_cli.groups import command_group
from foundry_cli.layouts import layouts
from foundry_cli.output import sentence

if TYPE_CHECKING:
    from foundry_sim.calibration import Calibration

sim_app = command_group("Predict, train and validate the simulator, offline.")
sim_app.command()(models)
sim_app.command()(devices)
sim_app.command()(layouts)


class MethodName(StrEnum):
    regressor = "regressor"
    heuristic = "heuristic"


class SplitName(StrEnum):
    curve = "curve"
    model = "model"
    device = "device"
    time = "time"
    source = "source"


class Refit(StrEnum):
    nothing = "nothing"
    forests = "forests"
    everything = "everything"


@sim_app.command()
def predict(
    source: Annotated[Path, typer.Option("--input", help="Requests, one JSON object per line.")],
    target: Annotated[Path, typer.Option("--output", help="Where the predictions go, one JSON object per line.")],
    method: Annotated[MethodName, typer.Option(help="Learned correction, or closed form only.")] = MethodName.regressor,
    calibration: Annotated[
        Path | None, typer.Option(help="Your own measurements, as `foundry sim calibrate` keeps them.")
    ] = None,
) -> None:
    """Predict latency and throughput of configurations."""
    from foundry_sim.predict_io import predict_file

    known = read_calibration(calibration) if calibration else None
    if source.resolve() == target.resolve():
        _fail(f"{source} is both --input and --output. Write the predictions to another file.")
    try:
        rows, errors = predict_file(source, target, method.value, known)
    except OSError as error:
        named = str(error.filename or source).removesuffix(".partial")
        _fail(f"{named}: {error.strerror}. Check the paths and try again.")
    note = "" if rows else f" ({source} holds no request)"
    typer.echo(f"{rows} rows, {errors} with an error → {target}{note}", err=True)


@sim_app.command()
def calibrate(
    calibration: Annotated[Path, typer.Argument(help="The file that keeps the points, with all its versions.")],
    points: Annotated[
        Path | None,
        typer.Option(help='Requests with "measured": {"ttft_ms", "tpot_ms"} (means), one JSON object per line.'),
    ] = None,
    revert: Annotated[int | None, typer.Option(min=0, help="Go back to this version, as a new one.")] = None,
) -> None:
    """Let your own measurements tighten predictions: add points, or take them back."""
    from foundry_sim.errors import ConfigurationError

    known = read_calibration(calibration, missing_is_empty=points is not None)
    try:
        if points:
            known = known.add(read_rows(points))
        if revert is not None:
            known = known.revert(revert)
    except ConfigurationError as error:
        _fail(sentence(error))
    if points or revert is not None:
        _keep(calibration, known.to_json() + "\n")
    for version, kept in enumerate(known.history):
        mark = "  ← in force" if version == known.version else ""
        typer.echo(f"version {version}: {len(kept)} points{mark}")


def _keep(path: Path, text: str) -> None:
    from foundry_sim.whole_file import whole_file

    try:
        with whole_file(path) as out:
            out.write(text)
    except OSError as error:
        _fail(f"{path}: {error.strerror}. Check the path and try again.")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one a line; ends the command with a sentence when the file is not that."""
    try:
        found = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        _fail(f"{path}: {error.strerror}.")
    except (ValueError, RecursionError):
        _fail(f"{path} is not one JSON object per line.")
    if not all(isinstance(row, dict) for row in found):
        _fail(f"{path} is not one JSON object per line.")
    if not found:
        _fail(f"{path} holds no points.")
    return found


def read_calibration(path: Path, missing_is_empty: bool = False) -> "Calibration":
    """What `foundry sim calibrate` keeps in this file; ends the command with a sentence when it is not that."""
    from foundry_sim.calibration import Calibration
    from foundry_sim.errors import ConfigurationError

    if missing_is_empty and not path.exists():
        return Calibration()
    try:
        return Calibration.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        _fail(f"{path}: {error.strerror}. Make one with `foundry sim calibrate {path} --points …`.")
    except (ConfigurationError, UnicodeDecodeError):
        _fail(f"{path} is not a calibration.")


@sim_app.command()
def train(
    target: Annotated[
        Path | None, typer.Option(help="Folder for the model files (default: the package's own).")
    ] = None,
) -> None:
    """Rebuild the shipped model files from the committed measurements, bit for bit."""
    from foundry_sim.train.fit import train as run

    for line in run(target):
        typer.echo(line)


@sim_app.command()
def validate(
    split: Annotated[
        SplitName | None, typer.Option(help="Only this way of leaving groups out; source: what one benchmark measured.")
    ] = None,
    refit: Annotated[
        Refit, typer.Option(help="Train the folds' forests, or everything, again instead of reading stored results.")
    ] = Refit.nothing,
) -> None:
    """Print errors on groups that were kept out of training: MAPE, median, p90, bias, coverage, regret, violations."""
    from foundry_sim.train.validate import report

    for line in report(split.value if split else None, refit.value):
        typer.echo(line)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    sim_app()

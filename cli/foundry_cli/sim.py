"""`foundry sim predict|train|validate`: the simulator offline, no platform needed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

sim_app = typer.Typer(name="sim", help="Predict, train and validate the simulator, offline.", no_args_is_help=True)


class MethodName(StrEnum):
    regressor = "regressor"
    heuristic = "heuristic"


class SplitName(StrEnum):
    curve = "curve"
    model = "model"
    device = "device"
    time = "time"


class Refit(StrEnum):
    nothing = "nothing"
    forests = "forests"
    everything = "everything"


@sim_app.command()
def predict(
    source: Annotated[Path, typer.Option("--input", help="Requests, one JSON object per line.")],
    target: Annotated[Path, typer.Option("--output", help="Where the predictions go, one JSON object per line.")],
    method: Annotated[MethodName, typer.Option(help="Learned correction, or closed form only.")] = MethodName.regressor,
) -> None:
    """Predict latency and throughput of configurations."""
    from foundry_sim.predict_io import predict_file

    try:
        rows, errors = predict_file(source, target, method.value)
    except OSError as error:
        _fail(f"{error.filename or source}: {error.strerror}. Check the paths and try again.")
    typer.echo(f"{rows} rows, {errors} with an error → {target}", err=True)


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
    split: Annotated[SplitName | None, typer.Option(help="Only this way of leaving groups out.")] = None,
    refit: Annotated[
        Refit, typer.Option(help="Train the folds' forests, or everything, again instead of reading stored results.")
    ] = Refit.nothing,
) -> None:
    """Print errors on groups that were kept out of training: MAPE, median, p90, bias, coverage, regret, violations."""
    from foundry_sim.train.validate import report

    for line in report(split.value if split else None, refit.value):
        typer.echo(line)


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    sim_app()

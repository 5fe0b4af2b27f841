"""How groups of commands are made, so that all of them look alike."""

import typer


def command_group(summary: str) -> typer.Typer:
    """A group whose help is plain text: markup would swallow what stands in brackets, such as ``[@USD]``."""
    return typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=summary)

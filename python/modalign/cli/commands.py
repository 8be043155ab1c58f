"""The command line: ``modalign align``, ``embed``, ``sweep``, ``tune``, ``reproduce``, ``data``, ``demo`` and more."""

from __future__ import annotations

import typer

from modalign.cli import measure, studies, train  # noqa: F401  each registers its commands
from modalign.cli.common import app, command

__all__ = ["app", "main"]


@command(
    "What this installation can do: versions, devices, and which backend runs each operation.",
    "Example: `modalign doctor`",
)
def doctor() -> None:
    from modalign.diagnosis import doctor as describe

    typer.echo(describe())


def main() -> None:
    """The entry point of the ``modalign`` command."""
    app()

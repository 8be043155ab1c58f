"""The application with all its commands."""

from __future__ import annotations

from modalign.cli import encode, measure, studies, train  # noqa: F401  each registers its commands
from modalign.cli.common import app, command
from modalign.cli.streams import echo, encode_everything

__all__ = ["app", "main"]


@command(
    "Describe this installation: versions, devices, and the backend that runs each operation.",
    "Example: `modalign doctor`",
)
def doctor() -> None:
    from modalign.diagnosis import doctor as describe

    echo(describe())


def main() -> None:
    """Run the ``modalign`` command."""
    encode_everything()
    app()

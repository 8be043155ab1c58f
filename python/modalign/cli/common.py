"""What every command has: the application, how a mistake ends, and the options that several share."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Bar",
    "Fresh",
    "Log",
    "Out",
    "Page",
    "Quiet",
    "Workers",
    "app",
    "command",
    "require_html",
    "require_place",
    "resumable",
    "style_of",
]

MISTAKES = (ValueError, TypeError, OSError, NotImplementedError, ArithmeticError, ImportError)
app = typer.Typer(
    name="modalign",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Measure whether aligning two modalities helps.",
    epilog="Examples: `modalign demo` · `modalign align images.npy texts.npy --tolerance 0.005` · "
    "`modalign sweep my.yaml --out results/mine` · `modalign doctor`",
)


def command(help: str, examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose user's mistakes end in one line on standard error and exit code 2.

    MODALIGN_TRACEBACK=1 shows where they were raised instead.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def careful(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except Exception as error:
                if os.environ.get("MODALIGN_TRACEBACK") == "1" or not (
                    isinstance(error, MISTAKES) or _of_storage(error)
                ):
                    raise
                typer.echo(f"modalign: {message_of(error)}", err=True)
                raise typer.Exit(2) from None

        name = function.__name__.strip("_").replace("_", "-")
        return app.command(name, help=help, epilog=examples)(careful)

    return register


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C ends with 130 and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nstopped; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None


def _of_storage(error: Exception) -> bool:
    """Raised by Optuna, or by the database that it keeps its trials in."""
    return type(error).__module__.partition(".")[0] in ("optuna", "sqlalchemy")


def message_of(error: Exception) -> str:
    if _of_storage(error):
        said = str(error.__cause__ or error).splitlines()[0]
        return f"Optuna's storage failed ({said}); what is finished stays: mend it, or give another --storage"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def style_of(bar: bool | None) -> str:
    return {None: "auto", True: "bar", False: "lines"}[bar]


def require_html(out: Path | None) -> None:
    if out is not None and out.suffix != ".html":
        raise ValueError(f"--out must end in .html, got {out}")
    if out is not None:
        require_place(out)


def require_place(path: Path) -> None:
    """Before the work, that its results can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); give another --out") from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modalign {importlib.metadata.version('modalign')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


Out = Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="results/NAME")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds of an earlier sweep.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the results.")]
Bar = Annotated[bool | None, typer.Option("--bar/--lines", help="A progress bar, or lines.", show_default="terminal")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Chunks that train at once.", show_default="one for each core")
]
Page = Annotated[
    Path | None, typer.Option(metavar="PAGE.html", help="Write a page, and its pictures into PAGE-figures.")
]
Log = Annotated[
    list[str] | None, typer.Option(metavar="TRACKER", help="Also write tensorboard or wandb files; may be repeated.")
]

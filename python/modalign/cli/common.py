"""The application, the decorator of its commands, errors, and the options that several commands share."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import inspect
import os
import tempfile
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modalign.cli.imports import import_file_or_module
from modalign.cli.streams import echo
from modalign.files.paths import expanded

if TYPE_CHECKING:
    from modalign.common.progress import Reporter

__all__ = [
    "Bar",
    "Fresh",
    "Log",
    "Page",
    "Quiet",
    "RunOptions",
    "Workers",
    "app",
    "command",
    "require_html",
    "require_pictures",
    "require_writable",
    "resumable",
]

MISTAKES = (ValueError, TypeError, OSError, NotImplementedError, ArithmeticError, ImportError)
COMMAND_LINE_PACKAGES = ("click", "typer")  # which print their own errors
NO_THREADS = (
    "the system gives this process no more threads; raise the limit (ulimit -u, or that of the container), or run with "
    "OMP_NUM_THREADS=1, OPENBLAS_NUM_THREADS=1, and --threads 1 or --workers 1 where the command has them"
)
STORAGE_PACKAGES = ("optuna", "sqlalchemy")  # Optuna, and the database that it keeps its trials in
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
    """Register a function as a command, whose user's mistakes end in one line on standard error and exit code 2.

    A function whose only parameter is a dataclass takes an option for each of its fields. With MODALIGN_TRACEBACK=1 a
    mistake shows where it was raised.

    Args:
        help (str): The text of ``--help``.
        examples (str): The line below it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        options = _options_of(function)

        @functools.wraps(function)
        def guarded(*args: object, **kwargs: object) -> None:
            with _errors_in_one_line():
                kwargs = {name: _expanded(value) for name, value in kwargs.items()}
                if options is None:
                    function(*args, **kwargs)
                else:
                    function(options(**kwargs))

        if options is not None:
            _take_fields_as_parameters(guarded, options)
        name = function.__name__.strip("_").replace("_", "-")
        return app.command(name, help=help, epilog=examples)(guarded)

    return register


def _expanded(value: object) -> object:
    """Return a path or a list of paths with ``~`` and ``$VARIABLES`` replaced; a shell leaves them in ``--out=~/x``."""
    if isinstance(value, list):
        return [_expanded(entry) for entry in value]
    return expanded(value) if isinstance(value, Path) else value


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """End with a line on standard error: exit code 1 for an error that nobody expected, 2 for any other."""
    try:
        yield
    except Exception as error:
        if (
            os.environ.get("MODALIGN_TRACEBACK") == "1"
            or isinstance(error, BrokenPipeError)  # the reader of a pipe has gone, which Click ends in silence
            or type(error).__module__.partition(".")[0] in COMMAND_LINE_PACKAGES
        ):
            raise
        message = _message(error)
        echo(f"modalign: {message or _unexpected(error)}", err=True)
        raise typer.Exit(1 if message is None else 2) from None


def _options_of(function: Callable[..., None]) -> type | None:
    """Return the dataclass that is the only parameter of ``function``, or None."""
    hints = typing.get_type_hints(function)
    kinds: list[type] = [hints[name] for name in inspect.signature(function).parameters]
    return kinds[0] if [dataclasses.is_dataclass(kind) for kind in kinds] == [True] else None


def _take_fields_as_parameters(function: Callable[..., None], options: type) -> None:
    """Give ``function`` the signature that has a keyword parameter for each field of ``options``."""
    hints = typing.get_type_hints(options, include_extras=True)
    function.__annotations__ = hints
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(options)
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


@contextlib.contextmanager
def resumable(again: str = "the same command") -> Iterator[None]:
    """End with exit code 130 on Ctrl-C, and say that ``again`` continues the work."""
    try:
        yield
    except KeyboardInterrupt:
        echo(f"\nstopped; {again} continues where it stopped", err=True)
        raise typer.Exit(130) from None


def _is_storage_error(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in STORAGE_PACKAGES


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error}; MODALIGN_TRACEBACK=1 shows where, which belongs in a report"


def _message(error: Exception) -> str | None:
    """Return the line that a user reads, None for an error that nobody expected."""
    if _is_storage_error(error):
        cause = str(error.__cause__ or error).splitlines()[0]
        return (
            f"Optuna's storage failed ({cause}); finished trials are kept: repair the storage, or give another "
            "--storage"
        )
    if "can't start new thread" in str(error) or "Resource temporarily unavailable" in str(error):
        return NO_THREADS
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"there is not enough memory ({error or 'the system gives no more'}); see --max-memory and --sample"
    if isinstance(error, OSError) and error.strerror:
        where = ""
        if isinstance(error, FileNotFoundError) and not Path(str(error.filename)).is_absolute():
            where = f" (in {os.getcwd()})"
        return f"{error.filename}: {error.strerror}{where}" if error.filename else error.strerror
    if isinstance(error, MISTAKES):
        return str(error) or type(error).__name__
    return None


def require_html(out: Path | None) -> None:
    """Check, before the work, that a page can be written to ``out``; None passes."""
    if out is not None and out.suffix.lower() != ".html":
        raise ValueError(f"--out must end in .html, got {out}")
    if out is not None:
        require_writable(out)
        require_pictures(out)


def require_pictures(page: Path) -> None:
    """Check, before the work, that the folder of a page's pictures is not the user's."""
    from modalign.report.figures.pictures import place_of
    from modalign.report.html import pictures_beside

    place_of(pictures_beside(page)).require_ours()


def require_writable(path: Path) -> None:
    """Check that ``path`` can be written before the work starts."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file as --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); give another --out") from None


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"modalign {importlib.metadata.version('modalign')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE_OR_FILE",
            help="Import a module, or a .py file, that registers metrics, data sets or studies, before the command "
            "runs. May be given several times.",
        ),
    ] = None,
) -> None:
    with _errors_in_one_line():
        for name in imports or ():
            import_file_or_module(name)


Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder for the results.", show_default="results/NAME")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Delete the results of an earlier run in the folder and start over.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results without progress.")]
Bar = Annotated[
    bool | None,
    typer.Option(
        "--bar/--lines",
        help="Show progress as a bar or as lines.",
        show_default="a bar on a terminal, lines elsewhere",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Number of chunks of runs that train at the same time.",
        show_default="one per CPU core",
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        metavar="PAGE.html", help="Write the result as an HTML page, with its pictures in the folder PAGE-figures."
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER", help="Also log the runs to this tracker: tensorboard or wandb. May be given several times."
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of commands that train: where the results go, and how progress is shown."""

    out: Out = None
    fresh: Fresh = False
    quiet: Quiet = False
    bar: Bar = None
    workers: Workers = None

    def reporter(self) -> Reporter:
        """Return what shows the progress."""
        from modalign.common.progress import Reporter

        return Reporter("none" if self.quiet else {None: "auto", True: "bar", False: "lines"}[self.bar])

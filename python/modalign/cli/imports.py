"""Modules of the user's that register metrics, data sets and studies before a command runs: ``--import``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

__all__ = ["import_file_or_module"]


def import_file_or_module(name: str) -> None:
    """Import a module by its name, searched in the working folder too, or a .py file by its path.

    Args:
        name (str): "my_package.my_metrics" or "path/to/my_metrics.py". A file is imported as the module of its name, so
            that "my_metrics:function" names what it defines.

    Raises:
        ImportError: There is no such module or file, or importing it fails; the message says how.
    """
    if not name.endswith(".py"):
        _search_first(os.getcwd())
    elif not Path(name).expanduser().is_file():
        raise ImportError(f"--import: there is no file {name} (in {os.getcwd()})")
    try:
        if name.endswith(".py"):
            _import_file(Path(name).expanduser().resolve())
        else:
            importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises
        reason = f"{type(error).__name__}: {error}"
        raise ImportError(f"--import {name} failed ({reason}); MODALIGN_TRACEBACK=1 shows where") from error


def _import_file(path: Path) -> None:
    _search_first(str(path.parent))
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) != str(path):
        raise ImportError(f"the name {path.stem} is taken by another module; rename the file")
    importlib.import_module(path.stem)


def _search_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)

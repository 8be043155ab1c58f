"""Tables with named columns, from files: Parquet, CSV, Arrow, and data sets that Hugging Face's save_to_disk wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "arrow_table", "column_of", "is_saved_to_disk", "lines_of", "read_table", "saved_files"]

KINDS = (".parquet", ".csv", ".arrow", ".feather")


def lines_of(path: Path) -> list[str]:
    """The lines of a UTF-8 text. A line ends with its newline alone, which other separators in a text are not.

    Raises UnicodeDecodeError.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines if lines[-1] else lines[:-1]


def read_table(path: Path, column: str | None = None) -> Any:
    """The pyarrow table in a file of ``KINDS`` or in a saved folder; ValueError for one that is not whole.

    column: all that is wanted of it. Of a Parquet file that has it nothing else is read.
    """
    import pyarrow as pa

    try:
        if path.is_dir():
            return arrow_table(saved_files(path))
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path, columns=[column] if column in parquet.read_schema(path).names else None)
        if path.suffix == ".csv":
            from pyarrow import csv

            return csv.read_csv(path)
        return arrow_table([path])
    except pa.ArrowException as error:
        raise ValueError(f"{path} must be a whole {path.suffix} file ({str(error).splitlines()[0]})") from None


def arrow_table(files: Sequence[Path]) -> Any:
    """Memory-mapped Arrow files or streams, one after the other, as one table. Raises what pyarrow raises."""
    import pyarrow as pa

    tables = []
    for file in files:
        source = pa.memory_map(str(file))
        try:
            tables.append(pa.ipc.open_file(source).read_all())
        except pa.ArrowInvalid:
            source.seek(0)
            tables.append(pa.ipc.open_stream(source).read_all())
    return pa.concat_tables(tables)


def is_saved_to_disk(folder: str | Path) -> bool:
    """Whether a folder is a data set as save_to_disk leaves it."""
    return (Path(folder) / "state.json").is_file()


def saved_files(folder: Path) -> list[Path]:
    """The Arrow streams of a saved data set, in the order that its state.json has."""
    state = folder / "state.json"
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        files = [folder / part["filename"] for part in content["_data_files"]]
        chosen = content.get("_indices_files") or content.get("_indices_data_files")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{state} must be whole, got one that is not ({type(error).__name__}); save it anew") from None
    if chosen:
        raise ValueError(f"{folder} must hold its rows in their order; use flatten_indices() before save_to_disk()")
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise FileNotFoundError(f"{folder} must hold {', '.join(missing) or 'data'}, as its state.json says")
    return files


def column_of(table: Any, path: str | Path, name: str) -> list[Any]:
    """The entries of a column; ValueError if there is no such column, or nothing in some of its rows."""
    if name not in table.column_names:
        raise ValueError(f"{path} has no column {name!r}; it holds {', '.join(table.column_names) or 'none'}")
    values: list[Any] = table.column(name).to_pylist()
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"{path}:{name} must hold something in each row, got nothing in rows {missing[:3]} (the first)"
        )
    return values

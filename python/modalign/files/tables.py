"""Tables with named columns in files: Parquet, CSV, Arrow, and data sets that Hugging Face's save_to_disk wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KINDS", "arrow_table", "column_of", "is_saved_to_disk", "lines_of", "read_table", "saved_files"]

KINDS = (".parquet", ".csv", ".arrow", ".feather")


def lines_of(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text. Newlines alone end a line; other separators belong to the text.

    Raises:
        UnicodeDecodeError: The file is not UTF-8.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines if lines[-1] else lines[:-1]


def read_table(path: Path, column: str | None = None) -> pa.Table:
    """Read a table from a file of ``KINDS`` or from the folder of a saved data set.

    Args:
        path: The file or folder.
        column: The only column that is needed, or None. Nothing else is read of a Parquet file that has it.

    Raises:
        ValueError: The file is not whole.
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


def arrow_table(files: Sequence[Path]) -> pa.Table:
    """Return memory-mapped Arrow files or streams, one after the other, as one table; pyarrow's errors pass through."""
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
    """Return whether a folder holds a data set that save_to_disk wrote."""
    return (Path(folder) / "state.json").is_file()


def saved_files(folder: Path) -> list[Path]:
    """Return the Arrow streams of a saved data set, in the order of its state.json."""
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


def column_of(table: pa.Table, path: str | Path, name: str) -> list[Any]:
    """Return the entries of a column.

    Args:
        table: The table.
        path: Where the table comes from, for messages.
        name: The column.

    Raises:
        ValueError: There is no such column, or a row of it is empty.
    """
    if name not in table.column_names:
        raise ValueError(f"{path} has no column {name!r}; it holds {', '.join(table.column_names) or 'none'}")
    values: list[Any] = table.column(name).to_pylist()
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"{path}:{name} must hold something in each row, got nothing in rows {missing[:3]} (the first)"
        )
    return values

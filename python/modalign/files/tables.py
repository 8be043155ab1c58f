"""Tables with named columns in files: Parquet, CSV, Arrow, and data sets that Hugging Face's save_to_disk wrote."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from modalign.files.contract import whole
from modalign.files.paths import require_data
from modalign.files.texts import encoding_of, lines_of, require_decodable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "KINDS",
    "arrow_table",
    "column_of",
    "is_saved_to_disk",
    "is_table",
    "read_column",
    "read_table",
    "saved_files",
    "split_column",
]

Cells: TypeAlias = Literal["typed", "labels", "texts"]
KINDS = (".parquet", ".csv", ".tsv", ".arrow", ".feather")
DELIMITERS = (",", ";", "\t", "|")
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
SHOWN = 3  # rows that a message names


def is_table(path: str | Path) -> bool:
    """Return whether a name ends like a table's, in small or capital letters."""
    return Path(path).suffix.lower() in KINDS


def split_column(spec: str) -> tuple[str, str] | None:
    """Split ``FILE.csv:COLUMN`` into both, None where no table's name comes before the column."""
    kinds = "|".join(kind[1:] for kind in KINDS)
    match = re.fullmatch(rf"(.+?\.(?:{kinds})):(.+)", spec, re.DOTALL | re.IGNORECASE)
    return None if match is None else (match[1], match[2])


def read_table(path: Path, column: str | None = None, *, cells: Cells = "typed") -> pa.Table:
    """Read a table from a file of ``KINDS`` or from the folder of a saved data set.

    A CSV file may be delimited by commas, semicolons (with decimal commas), tabs or bars, whichever gives it the
    column, and be in UTF-8, or in UTF-16 with a mark. Cells without quotes that are blank or read NA, nan or null are
    missing.

    Args:
        path: The file or folder.
        column: The only column that is needed, or None. Nothing else is read of a Parquet or CSV file that has it.
        cells: How the cells of a CSV file are read: "typed", as numbers where all are; "labels", as text; "texts", as
            text of which none is missing.

    Raises:
        ValueError: The file is not whole, or a CSV file is in another encoding.
    """

    files = saved_files(path) if path.is_dir() else [require_data(path)]
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        require_decodable(path)
    with whole(path):
        table = _read_table(files, path, column, cells=cells)
        for name, values in zip(table.column_names, table.columns, strict=True):
            if column in (None, name):
                values.validate(full=True)  # offsets of a damaged file may point anywhere, and its text be none
        return table


def _read_table(files: Sequence[Path], path: Path, column: str | None, *, cells: Cells) -> pa.Table:
    kind = path.suffix.lower()
    if path.is_dir() or kind in (".arrow", ".feather"):
        return arrow_table(files)
    if kind == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path, columns=[column] if column in parquet.read_schema(path).names else None)
    return _read_csv(path, column, cells)


def read_column(path: Path, column: str, *, cells: Cells = "typed") -> pa.ChunkedArray:
    """Return a column of a table in a file, checked to be there once; nulls are missing.

    Args:
        path: The file or folder, as ``read_table`` takes it.
        column: The name of the column.
        cells: As for ``read_table``.

    Raises:
        ValueError: The file is not whole, or it has no such column or several.
    """
    table = read_table(path, column, cells=cells)
    count = table.column_names.count(column)
    if count != 1:
        held = ", ".join(table.column_names) or "none"
        raise ValueError(
            f"{path} has no column {column!r}; it holds {held}"
            if not count
            else f"{path} has {count} columns {column!r}; rename them"
        )
    return table.column(column)


def column_of(path: Path, column: str, *, cells: Cells = "typed") -> list[Any]:
    """Return the entries of a column of a table in a file.

    Raises:
        ValueError: As ``read_column``, and where a row of the column is empty.
    """
    values: list[Any] = read_column(path, column, cells=cells).to_pylist()
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"{path}:{column} must hold something in each row, got nothing in rows {missing[:SHOWN]} (the first of "
            f"{len(missing):,}); drop these rows everywhere, or write something there"
        )
    return values


def _read_csv(path: Path, column: str | None, cells: Cells) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    encoding = encoding_of(path)
    delimiter, names = _header(path, encoding, column)
    needed = [column] if column is not None and names.count(column) == 1 else None

    def read(decimal_point: str) -> pa.Table:
        return arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(encoding="utf8" if encoding.startswith("utf-8") else encoding),
            # a blank line of a single column is an empty cell
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=len(names) > 1
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=needed,
                column_types={column: pa.string()} if needed and cells != "typed" else None,
                strings_can_be_null=cells != "texts",
                quoted_strings_can_be_null=False,
                decimal_point=decimal_point,
            ),
        )

    table = read(".")
    if len(names) == 1:
        table = table.slice(0, table.num_rows - _blank_lines_at_end(path))
    if delimiter == ";" and cells == "typed" and any(_has_decimal_commas(values) for values in table.columns):
        return read(",")
    return table


def _header(path: Path, encoding: str, column: str | None) -> tuple[str, list[str]]:
    """Return the delimiter of a CSV file and the names of its columns.

    The delimiter is the first that gives the file the column, or else the one that gives it most columns.
    """
    headers = {}
    for delimiter in DELIMITERS:
        with path.open(encoding=encoding, newline="") as file:
            rows = csv.reader(file, delimiter=delimiter)
            headers[delimiter] = next((row for row in rows if row), [])
    having = [delimiter for delimiter, names in headers.items() if column in names]
    best = having[0] if having else max(DELIMITERS, key=lambda delimiter: len(headers[delimiter]))
    return best, headers[best]


def _blank_lines_at_end(path: Path) -> int:
    """Return how many blank lines a text file ends with."""
    return sum(1 for _ in takewhile(lambda line: not line.strip(), reversed(lines_of(path))))


def _has_decimal_commas(cells: pa.ChunkedArray) -> bool:
    """Return whether all cells of a column are numbers such as 0,5 or whole numbers, and some are the former."""
    import pyarrow as pa

    if not pa.types.is_string(cells.type):
        return False
    texts = [text for text in cells.to_pylist() if text is not None]
    return any("," in text for text in texts) and all(
        DECIMAL_COMMA.fullmatch(text) or text.lstrip("+-").isdecimal() for text in texts
    )


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

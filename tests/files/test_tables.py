"""A column of a table is the same whatever delimits and encodes the file, and no row is lost."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from modalign.data import own
from modalign.encoders.embedding import embed
from modalign.encoders.inputs import read_texts
from modalign.files.labels import read_labels
from modalign.files.tables import column_of

FILES = {
    "commas": ("t.csv", "y,t\ncat,1\ndog,2\n"),
    "semicolons": ("t.csv", "y;t\ncat;1\ndog;2\n"),
    "tabs": ("t.csv", "y\tt\ncat\t1\ndog\t2\n"),
    "bars": ("t.csv", "t|y\n1|cat\n2|dog\n"),
    "tsv": ("t.tsv", "y\tt\ncat\t1\ndog\t2\n"),
    "capitals": ("T.CSV", "y,t\ncat,1\ndog,2\n"),
    "one column": ("t.csv", "y\ncat\ndog\n\n\n"),
    "blank lines at the end": ("t.csv", "y,t\ncat,1\ndog,2\n\n\n"),
    "quotes": ("t.csv", '"y","t"\n"cat","a, b"\n"dog","c\nd"\n'),
    "spaces": ("t.csv", "y,t\ncat ,1\n dog,2\n"),
    "commas in a field": ("t.csv", "y;a,b\ncat;1,5\ndog;2,5\n"),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", FILES)
def test_labels_are_the_same_in_every_csv(kind: str, encoding: str, tmp_path: Path) -> None:
    name, content = FILES[kind]
    for text in (content, content.replace("\n", "\r\n")):
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert read_labels(f"{tmp_path}/{name}:y") == ["cat", "dog"]


def test_endings_in_capitals_are_the_same_kinds(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"y": ["cat", "dog"]}), tmp_path / "T.PARQUET")
    np.save(tmp_path / "l.npy", np.array(["cat", "dog"]))
    (tmp_path / "l.npy").rename(tmp_path / "L.NPY")
    (tmp_path / "L.TXT").write_text("cat\ndog")
    for spec in ("T.PARQUET:y", "L.NPY", "L.TXT"):
        assert read_labels(tmp_path / spec) == ["cat", "dog"]
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    (tmp_path / "L.TXT").write_text("\n".join(["cat", "dog"] * 20))
    assert own(tmp_path / "X.NPY", x, tmp_path / "L.TXT").classes == ("cat", "dog")
    labels = pa.array(["cat", "dog"] * 20).dictionary_encode()
    parquet.write_table(pa.table({"y": labels, "text": ["a fox", "one hen"] * 20}), tmp_path / "L.PARQUET")
    assert own(f"{tmp_path}/L.PARQUET:text", x, f"{tmp_path}/L.PARQUET:y").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "content", ["y,t\ncat,1\n,2\nNA,3\nnan,4\n", "y\ncat\n\nNA\nnan\n", "y;t\ncat;1\n;2\nNULL;3\nn/a;4\n"]
)
def test_blank_cells_and_what_reads_as_missing_are_refused_with_their_rows(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=r"t.csv:y must .* rows \[1, 2, 3\]"):
        read_labels(f"{tmp_path}/t.csv:y")
    with pytest.warns(UserWarning, match="3 of 4 pairs have no label"):
        assert own(np.eye(4), np.eye(4), f"{tmp_path}/t.csv:y").has_label().tolist() == [True, False, False, False]


def test_blank_lines_of_a_text_file_are_missing_labels_except_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("cat\n\nNA\n  \ndog\n\n")
    with pytest.raises(ValueError, match=r"l.txt must be given for every item, got none .* rows \[1, 2, 3\]"):
        read_labels(tmp_path / "l.txt")


def test_quoted_text_that_reads_as_missing_is_a_label_and_zeros_in_front_stay(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('country,code\n"NA",007\n"DE",010\n')
    assert read_labels(f"{tmp_path}/t.csv:country") == ["NA", "DE"]
    assert read_labels(f"{tmp_path}/t.csv:code") == ["007", "010"]


def test_whole_numbers_saved_as_floats_are_named_as_whole_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.array([0.0, 1.0, 10.0]))
    assert read_labels(tmp_path / "l.npy") == ["0", "1", "10"]


def test_decimal_commas_are_numbers_where_semicolons_delimit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name;score\na,b;0,5\nc;12\n")
    assert column_of(tmp_path / "t.csv", "score") == [0.5, 12.0]
    assert column_of(tmp_path / "t.csv", "name") == ["a,b", "c"]


def test_texts_keep_blank_cells_and_words_that_read_as_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,i\nnull,1\n,2\na fox,3\n")
    assert read_texts(f"{tmp_path}/t.csv:text") == ["null", "", "a fox"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("y,y\n1,2\n", "has 2 columns 'y'; rename them"),
        ("x,t\n1,2\n", "has no column 'y'; it holds x, t"),
        ("", "must hold data, got an empty file"),
        ("y,t\n1,2,3\n", "must be a whole .csv file.*Expected 2 columns, got 3"),
    ],
)
def test_a_csv_without_the_column_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"t.csv {message}"):
        read_labels(f"{tmp_path}/t.csv:y")


def test_lists_of_numbers_in_text_are_no_words(tmp_path: Path) -> None:
    """A data frame of embeddings as CSV, or numpy.savetxt, with an ending that says text."""
    x = np.random.default_rng(0).normal(size=(60, 5)).round(3)
    lists = [str(row.tolist()) for row in x]
    (tmp_path / "t.csv").write_text("e,y\n" + "".join(f'"{text}",a\n' for text in lists))
    parquet.write_table(pa.table({"e": lists}), tmp_path / "t.parquet")
    np.savetxt(tmp_path / "t.txt", x)
    expected = own(x, x, ["a", "b", "c"] * 20).x
    for source in (f"{tmp_path}/t.csv:e", f"{tmp_path}/t.parquet:e", f"{tmp_path}/t.txt", lists):
        assert np.allclose(own(source, x, ["a", "b", "c"] * 20).x, expected, atol=1e-6)
        with pytest.raises(ValueError, match="holds lists of 5 numbers as text, which are embeddings and no texts"):
            embed(lambda batch: np.ones((len(batch), 1)), source, tmp_path / "out.npy")


@pytest.mark.parametrize("rows", [3, 300_000])
def test_a_table_in_another_encoding_names_the_line_and_what_to_do(rows: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"y,z\n" + b"cat,1\n" * rows + "émeu,2\n".encode("latin-1"))
    for read in (read_labels, read_texts, lambda spec: own(np.eye(4), np.eye(4), spec)):
        with pytest.raises(
            ValueError, match=rf"t.csv must be UTF-8 text, got byte 0xe9 in line {rows + 2} .*; save it as UTF-8"
        ):
            read(f"{tmp_path}/t.csv:y")


def test_a_column_that_is_neither_text_nor_images_is_not_embedded(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"i": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet:i must hold texts or images, got int; name a column that does"):
        embed(lambda batch: np.ones((len(batch), 1)), f"{tmp_path}/t.parquet:i", tmp_path / "out.npy")

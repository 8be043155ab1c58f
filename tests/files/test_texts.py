"""Text is read the same in every Unicode encoding and with every line end, and numbers in it are no words."""

from pathlib import Path

import numpy as np
import pytest

from modalign.files.texts import lines_of, numbers_in

LINES = ["cat", "émeu", "", "a dog"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_and_line_ends_are_no_part_of_the_lines(encoding: str, end: str, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    for last in ("", end):
        file.write_bytes((end.join(LINES) + last).encode(encoding))
        assert lines_of(file) == LINES
    big_endian = {"utf-16": b"\xfe\xff", "utf-32": b"\x00\x00\xfe\xff"}.get(encoding)
    if big_endian:
        file.write_bytes(big_endian + end.join(LINES).encode(f"{encoding}-be"))
        assert lines_of(file) == LINES


@pytest.mark.parametrize("content", [b"caf\xe9", "cat\n".encode("utf-16-le"), b"\x93NUMPY\x01\x00v\x00", b"\xff\xfea"])
def test_what_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"lines.txt must be UTF-8 text"):
        lines_of(tmp_path / "lines.txt")


X = np.array([[0.5, -2.0, 3e-5], [1.0, 0.25, 12.0]])
WRITTEN = {
    "Python": [str(row.tolist()) for row in X],
    "NumPy": [str(row) for row in X],
    "NumPy's repr": [repr(row) for row in X],
    "float32": [repr(row.astype(np.float32)) for row in X],
    "savetxt": [" ".join(f"{value:.18e}" for value in row) for row in X],
    "semicolons": [";".join(map(str, row)) for row in X],
    "tuples": [str(tuple(row.tolist())) for row in X],
    "torch": [f"tensor({row.tolist()})" for row in X],
    "lines": [str(row.tolist()).replace(",", ",\n ") for row in X],
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_lists_of_numbers_in_text_are_numbers(kind: str) -> None:
    numbers = numbers_in("x", WRITTEN[kind])
    assert numbers is not None
    assert np.allclose(numbers, X, rtol=1e-6)


def test_whole_numbers_and_single_numbers() -> None:
    ids = numbers_in("x", ["[101, 7]", "[3, 0]"])
    assert (ids.dtype, ids.tolist()) == (np.int64, [[101, 7], [3, 0]])
    assert numbers_in("x", ["0.5", "nan"]).shape == (2,)
    assert numbers_in("x", ["[0.5]", "[1]"]).shape == (2, 1)


def test_texts_with_some_numbers_are_words() -> None:
    for texts in (["a red fox", "7"], ["route 66"], ["1984", "an animal farm"], [""], [], ["1" + " " * 100_000 + "x"]):
        assert numbers_in("x", texts) is None


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["[0.1, 2]", "[0.3, 4]", "none"], r"numbers as text but for rows \[2\] \(the first of 1\); mend or drop"),
        (["[0.1 0.2 ... 0.3]"] * 2, r"most were left out \(\.\.\.\) in rows \[0, 1\]"),
        (["[1, 2]", "[1]"], "each row must be one list of one length, got 1 to 2"),
        (["[[1, 2], [3, 4]]"] * 2, "lists of lists"),
    ],
)
def test_lists_that_are_not_whole_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"x holds .*{message}"):
        numbers_in("x", texts)

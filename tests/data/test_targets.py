"""What labels of a user's pairs mean: classes, numbers or several labels, never one for the other without a word."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from modalign.data import own, require_trainable

N = 60
X = np.random.default_rng(0).normal(size=(N, 4))
CODES = np.arange(N) % 3
NUMBERS = np.random.default_rng(1).normal(size=N)


@pytest.mark.parametrize("low", [0, 1])
def test_classes_saved_as_floats_are_classes_with_a_warning(low: int, tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", (CODES + low).astype(np.float32))
    expected = own(X, X, CODES + low)
    for labels in ((CODES + low).astype(float), tmp_path / "l.npy", torch.from_numpy(CODES + low).float()):
        with pytest.warns(UserWarning, match=r"saved as floats, .* taken as 3 classes; say task: regression"):
            data = own(X, X, labels)
        assert (data.task, data.classes) == ("classification", expected.classes)
        assert data.fingerprint() == expected.fingerprint()


def test_a_task_that_is_given_is_taken_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert own(X, X, CODES.astype(float), task="classification").classes == ("0", "1", "2")
        assert own(X, X, CODES.astype(float), task="regression").labels.tolist() == CODES.tolist()
        assert own(X, X, NUMBERS).task == "regression"
        assert own(X, X, NUMBERS.astype(str), task="regression").labels.tolist() == NUMBERS.astype(np.float32).tolist()


@pytest.mark.parametrize("labels", [np.arange(N) * 1.0, CODES * 2.0, CODES - 1.0, np.full(N, 1.0)])
def test_whole_numbers_that_may_be_either_need_a_task(labels: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"whole numbers saved as floats, .*; say task: classification .* or task: regr"
    ):
        own(X, X, labels)
    assert own(X, X, labels, task="regression").labels.tolist() == labels.tolist()


def test_numbers_as_text_are_no_classes_without_a_task(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("\n".join(map(str, NUMBERS)))
    for labels in (NUMBERS.astype(str), [str(number) for number in NUMBERS], tmp_path / "l.txt"):
        with pytest.raises(ValueError, match=r"own: labels hold numbers as text, such as .*; say task: classification"):
            own(X, X, labels)
        assert own(X, X, labels, task="regression").labels.dtype == torch.float32
    (tmp_path / "l.txt").write_text("\n".join(map(str, CODES)))
    assert own(X, X, tmp_path / "l.txt").classes == ("0", "1", "2")


def test_floats_that_are_written_as_text_are_read_as_floats_and_integers_stay_names(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "l.txt", CODES.astype(float))
    for labels in (tmp_path / "l.txt", [f"{code}.0" for code in CODES], np.array(CODES * 1.0, dtype=str)):
        with pytest.warns(UserWarning, match=r"saved as floats, 0 to 2: taken as 3 classes"):
            data = own(X, X, labels)
        assert data.classes == ("0", "1", "2")
        assert data.labels.tolist() == CODES.tolist()
        assert own(X, X, labels, task="classification").classes == ("0", "1", "2")
        assert own(X, X, labels, task="regression").labels.tolist() == CODES.tolist()
    for numbers in (np.arange(N) * 1.0, 20.0 + 5 * (np.arange(N) % 12)):
        np.savetxt(tmp_path / "l.txt", numbers)
        with pytest.raises(ValueError, match=r"whole numbers saved as floats, .*; say task: classification"):
            own(X, X, tmp_path / "l.txt")
        assert own(X, X, tmp_path / "l.txt", task="regression").labels.tolist() == numbers.tolist()
    assert own(X, X, ["3", "007"] * 30).classes == ("007", "3")
    assert own(X, X, ["1.0", "2.0"] * 30, names=["1.0", "2.0"]).classes == ("1.0", "2.0")


def test_labels_of_one_class_are_enough_to_measure_alignment_and_not_to_train() -> None:
    with pytest.raises(ValueError, match="at least 2 classes in the training part, got 1"):
        require_trainable(own(X, X, ["a"] * N))


@pytest.mark.parametrize("word", ["", "nan", "NaN", "NaT", "<NA>"])
def test_strings_that_numpy_and_pandas_write_for_a_missing_value_are_missing_in_memory(word: str) -> None:
    with pytest.warns(UserWarning, match="20 of 60 pairs have no label"):
        data = own(X, X, [word, "a", "b"] * 20)
    assert data.classes == ("a", "b")
    assert data.labelled is not None
    assert data.labelled.tolist() == [False, True, True] * 20
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert f'`"{word}"`' in page
    assert own(X, X, ["NA", "null", "None"] * 20).classes == ("NA", "None", "null")


def test_a_column_of_labels_is_one_label_a_pair() -> None:
    words = pd.DataFrame({"label": np.array(["ant", "bee", "cat"])[CODES]})
    assert own(X, X, words).classes == ("ant", "bee", "cat")
    assert own(X, X, CODES[:, None]).classes == ("0", "1", "2")
    assert own(X, X, NUMBERS[:, None]).task == "regression"
    several = np.random.default_rng(0).integers(0, 2, (N, 3))
    for labels in (several, several.tolist(), torch.from_numpy(several), pd.DataFrame(several), several.astype(bool)):
        assert own(X, X, labels).task == "multilabel"
    assert own(X, X, several[:, :1]).task == "multilabel"


def test_parts_by_name_or_number_whatever_holds_them(tmp_path: Path) -> None:
    numbers = [0, 2, 1] * 20
    names = np.array(["train", "validation", "test"])[numbers].tolist()
    expected = own(X, X, CODES, split=numbers).split
    (tmp_path / "windows.txt").write_bytes(("\r\n".join(names) + "\r\n").encode("utf-8-sig"))
    (tmp_path / "numbers.txt").write_text("\n".join(map(str, numbers)))
    (tmp_path / "t.csv").write_text("split\n" + "\n".join(f"{name} " for name in names))
    for split in (
        names,
        pd.Categorical(names),
        np.array(numbers, np.float32),
        torch.tensor(numbers),
        pd.Series(numbers, dtype="Int64"),
        tmp_path / "windows.txt",
        tmp_path / "numbers.txt",
        f"{tmp_path}/t.csv:split",
    ):
        assert torch.equal(own(X, X, CODES, split=split).split, expected)

"""Pairs of which some have no label: every form in which labels come, and the parts in which they may be missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modalign.data import TEST, TRAIN, PairedDataset, own, require_trainable

N = 60
X = np.random.default_rng(0).normal(size=(N, 4))
GAPS = np.arange(N) % 5 == 0
WORDS = [None if gap else ("ant", "bee", "cat")[i % 3] for i, gap in enumerate(GAPS)]
CODES = [None if gap else i % 3 for i, gap in enumerate(GAPS)]
NUMBERS = np.where(GAPS, np.nan, np.random.default_rng(1).normal(size=N))
SEVERAL = np.where(GAPS[:, None], np.nan, np.random.default_rng(2).integers(0, 2, (N, 3)))


def text_file(path: Path) -> Path:
    path.write_text("\n".join("NA" if word is None else word for word in WORDS))
    return path


def table(path: Path) -> Path:
    pq.write_table(
        pa.table(
            {"word": WORDS, "code": CODES, "number": [None if g else v for g, v in zip(GAPS, NUMBERS, strict=True)]}
        ),
        path,
    )
    return path


FORMS: dict[str, Any] = {
    "a list of text": WORDS,
    "an array of objects": np.array(WORDS, dtype=object),
    "a column of pandas": pd.Series(WORDS),
    "a categorical": pd.Series(WORDS, dtype="category"),
    "a data frame": pd.DataFrame({"label": WORDS}),
    "a column of polars": pl.Series(WORDS),
    "an array of Arrow": pa.array(WORDS),
    "text with blanks": ["" if word is None else word for word in WORDS],
}


@pytest.mark.parametrize("form", FORMS)
def test_missing_classes_are_found_in_every_form(form: str) -> None:
    with pytest.warns(UserWarning, match="own: 12 of 60 pairs have no label: they train the alignment term alone"):
        data = own(X, X, FORMS[form])
    assert data.classes == ("ant", "bee", "cat")
    assert data.has_label().tolist() == (~GAPS).tolist()
    assert data.labels.tolist() == [-1 if gap else i % 3 for i, gap in enumerate(GAPS)]
    assert (data.split[torch.from_numpy(GAPS)] == TRAIN).all()
    require_trainable(data)


def test_missing_classes_are_found_in_files(tmp_path: Path) -> None:
    parquet = table(tmp_path / "t.parquet")
    pd.read_parquet(parquet).to_csv(tmp_path / "t.csv", index=False)
    np.save(tmp_path / "l.npy", np.array([np.nan if code is None else code for code in CODES]))
    torch.save(torch.tensor([float("nan") if code is None else code for code in CODES]), tmp_path / "l.pt")
    files = [text_file(tmp_path / "l.txt"), f"{parquet}:word", f"{tmp_path}/t.csv:word", f"{parquet}:code"]
    for file in [*files, tmp_path / "l.npy", tmp_path / "l.pt"]:
        with pytest.warns(UserWarning, match="12 of 60 pairs have no label"):
            data = own(X, X, file)
        assert data.labels.tolist() == [-1 if gap else i % 3 for i, gap in enumerate(GAPS)]
    for file in (f"{parquet}:number", f"{tmp_path}/t.csv:number"):
        with pytest.warns(UserWarning, match="12 of 60"):
            data = own(X, X, file)
        assert data.task == "regression"
        assert data.labels.isnan().tolist() == GAPS.tolist()


def test_missing_numbers_and_rows_of_labels() -> None:
    with pytest.warns(UserWarning, match="12 of 60"):
        numbers, several = own(X, X, NUMBERS), own(X, X, SEVERAL)
    assert numbers.labels[numbers.has_label()].numpy() == pytest.approx(NUMBERS[~GAPS].astype(np.float32))
    assert several.task == "multilabel"
    assert several.labels.isnan().all(1).tolist() == GAPS.tolist()
    for data in (numbers, several):
        require_trainable(data)
    partly = SEVERAL.copy()
    partly[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"own: labels must be finite, got NaN or inf in rows \[0\]"):
        own(X, X, partly)


@pytest.mark.parametrize("missing", [-1, "-1"])
def test_minus_one_is_a_class_and_a_score_unless_it_is_said_to_be_missing(missing: float | str, recwarn: Any) -> None:
    codes = np.array([-1 if code is None else code for code in CODES])
    assert own(X, X, codes).classes == ("-1", "0", "1", "2")
    assert own(X, X, codes * 1.0, task="regression").labelled is None
    for labels in (codes, codes * 1.0, codes.astype(str), torch.from_numpy(codes)):
        data = own(X, X, labels, missing=missing, task="classification")
        assert data.classes == ("0", "1", "2")
        assert data.has_label().tolist() == (~GAPS).tolist()
    assert own(X, X, codes, missing=missing).settings["missing"] == missing
    assert own(X, X, np.where(GAPS[:, None], -1, codes[:, None] == np.arange(3)), missing=missing).task == "multilabel"
    assert own(X, X, ["?" if word is None else word for word in WORDS], missing="?").classes == ("ant", "bee", "cat")
    assert not recwarn.list  # the value was named, so nothing is unexpected


@pytest.mark.filterwarnings("ignore:own. 12 of 60")
def test_only_training_pairs_may_lack_a_label() -> None:
    split = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    with pytest.raises(ValueError, match=r"validation and test part must have a label, .* in rows \[40, 45, 50\]"):
        own(X, X, WORDS, split=split)
    labels = [word if word or i < 40 else "ant" for i, word in enumerate(WORDS)]
    with pytest.warns(UserWarning, match="8 of 60"):
        assert own(X, X, labels, split=split).part(TEST).has_label().all()
    with pytest.raises(ValueError, match="own: labels must be given for some items, got none in any of 60 rows"):
        own(X, X, [None] * N)
    with pytest.raises(ValueError, match="own: labels must be given for some pairs"):
        own(X, X, np.full((N, 2), np.nan))


def test_a_data_set_says_which_pairs_have_a_label() -> None:
    rows, labels = torch.randn(4, 2), torch.tensor([0, 1, -1, 0])
    split, known = torch.tensor([0, 0, 0, 2]), torch.tensor([True, True, False, True])

    def pairs(**changes: Any) -> PairedDataset:
        values: dict[str, Any] = {"labels": labels, "split": split, "labelled": known} | changes
        return PairedDataset("t", ("a", "b"), rows, rows, classes=("n", "p"), **values)

    assert pairs().part(TRAIN).has_label().tolist() == [True, True, False]
    assert pairs().pair(1, 0).has_label().tolist() == known.tolist()
    with pytest.raises(ValueError, match="labels must be from 0 to 1"):
        pairs(labelled=None)
    with pytest.raises(ValueError, match="labels must be -1 where labelled is False"):
        pairs(labels=labels.abs())
    with pytest.raises(ValueError, match="validation and test part must have a label"):
        pairs(split=split.flip(0).roll(2))

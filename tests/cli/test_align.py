"""Tests of ``modalign align``: what it prints and writes, and its error messages."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import modalign
from modalign.cli import app

runner = CliRunner()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    for name, rows in (("a", x), ("b", np.tanh(x) + 0.3 * rng.normal(size=x.shape).astype(np.float32))):
        np.save(tmp_path / f"{name}.npy", rows)
    return [str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]


def run(*arguments: str) -> str:
    result = runner.invoke(app, ["align", *arguments, "--quiet"], env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_and_files(files: list[str], tmp_path: Path) -> None:
    outs = [str(tmp_path / f"out.{ending}") for ending in ("json", "parquet", "html")]
    text = run(*files, "--k", "5", "--metrics", "mutual_knn, cka", *(word for out in outs for word in ("--out", out)))
    value = modalign.mutual_knn(*(np.load(file) for file in files), k=5)
    assert f"{value:.4f}" in text
    assert "linear CKA" in text
    assert "│ mutual_knn │ mutual k-NN" in text  # the name that --metrics takes
    assert f"{value:.4f}" in run(*files, "--k", "5", "--metrics", "mutual_knn", "--prepare", "unit_rows")
    assert modalign.load_alignment(outs[0])["mutual_knn"].value == value
    assert pd.read_parquet(outs[1])["metric"].tolist() == ["mutual_knn", "cka"]
    assert Path(outs[2]).read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "out-figures" / "scores.svg").is_file()


def test_samples_and_labels(files: list[str], tmp_path: Path) -> None:
    assert "neighbours of 100 of them" in run(*files, "--sample", "100", "--k", "5")
    labels = tmp_path / "classes.txt"
    labels.write_text("\n".join("ab"[i % 2] for i in range(300)) + "\n")
    assert "by chance" in run(*files, "--within", "kmeans:5", "--metrics", "mutual_knn", "--relabellings", "19")
    assert "by chance" in run(*files, "--within", str(labels), "--metrics", "mutual_knn", "--relabellings", "19")
    pd.DataFrame({"image": [i // 2 for i in range(300)]}).to_parquet(tmp_path / "groups.parquet")
    run(*files, "--groups", f"{tmp_path}/groups.parquet:image", "--metrics", "mutual_knn", "--k", "5", "--null", "none")


def test_ids(files: list[str], tmp_path: Path) -> None:
    b = np.load(files[1])[::-1][:200]
    np.save(files[1], b)
    names = [f"item {i}" for i in range(300)]
    for name, lines in (("a", names), ("b", names[::-1][:200])):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    options = ["--ids", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--k", "5"]
    assert "200 items" in run(*files, *options)


def test_the_table_says_what_its_columns_mean(files: list[str]) -> None:
    text = run(*files, "--k", "5", "--size-curve", "--metrics", "mutual_knn,cka")
    assert "by chance: mean score of unrelated pairs" in text
    assert "calibrated: 0 where chance could have given the score, 1 for the best there is" in text
    assert "mutual k-NN expected of so many items: 0." in text
    assert "(of " not in text
    text = run(*files, "--k", "5", "--sample", "100", "--metrics", "mutual_knn,jaccard_knn,cka")
    assert "mutual_knn, jaccard_knn: interval of the score of these 300 items; others: of other such items" in text
    assert "(of 20): the mean of 20 random relabellings, without a p-value" in text
    assert "note: no null for mutual_knn, jaccard_knn of a sample" in text


def test_layers(files: list[str], tmp_path: Path) -> None:
    for file in files:
        rows = np.load(file)
        np.save(file, np.stack([rows, rows[:, ::-1] ** 2], 1))
    assert "0." in run(*files, "--layers", "--k", "5", "--prepare", "platonic", "--relabellings", "19")
    text = run(*files, "--layers", "--k", "5", "--relabellings", "19", "--out", str(tmp_path / "l.html"))
    assert "highest" in text
    assert "(0, 0)" in text
    assert "p <= 0.05" in text
    distance = run(*files, "--layers", "--metrics", "cmd", "--k", "5", "--relabellings", "19")
    assert "lowest" in distance
    assert "chance of the minimum" in distance
    assert "(lower is closer)" in distance
    assert "highest" not in distance
    assert (tmp_path / "l.html").exists()
    (tmp_path / "names.txt").write_text("\n".join(f"item {i}" for i in range(300)))
    labels, table = tmp_path / "labels.txt", tmp_path / "l.parquet"
    labels.write_text("\n".join(str(i % 3) for i in range(300)))
    options = ["--layers", "--k", "5", "--relabellings", "19"]
    classes = run(*files, *options, "--within", str(labels), "--ids", *[str(tmp_path / "names.txt")] * 2)
    assert "highest" in classes
    assert "highest" in run(*files, *options, "--groups", str(labels), "--out", str(table))
    assert pd.read_parquet(table).shape == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "cak"], "metrics must be among"),
        (["--out", "a.txt"], "--out must end in"),
        (["--tolerance", "2"], "tolerance must be between 0 and 0.5"),
        (["--max-memory", "much"], "max_memory must be a number of B"),
        (
            ["--layers", "--sample", "50", "--metrics", "cka,mutual_knn"],
            "leave out --sample, all but one of --metrics",
        ),
        (
            [
                "--layers",
                "--no-intervals",
                "--size-curve",
                "--null",
                "none",
                "--tolerance",
                "0.1",
                "--max-memory",
                "1GB",
            ],
            "leave out --tolerance, --max-memory, --size-curve, --no-intervals, --null",
        ),
        (["--out", "/proc/none/a.html"], "/proc/none/a.html cannot be written ("),
        (["--k", "0"], "align: k must be between 1 and 299 for 300 items, got 0"),
        (["--layers", "--metrics", "rsa"], "got 'rsa'"),
        (["--layers", "--within", "kmeans:9"], "clusters the rows of one layer; with --layers give a file of classes"),
        (["--within", "kmeans:many"], "--within kmeans:COUNT needs a whole number of clusters, got kmeans:many"),
        (["--within", "nowhere.txt"], "there is no file nowhere.txt"),
    ],
)
def test_mistakes_are_one_sentence(files: list[str], arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["align", *files, *arguments, "--quiet"])
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1

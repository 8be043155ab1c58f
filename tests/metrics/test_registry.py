"""The metric registry: one entry a metric, from which dispatch, the command line and the documentation are derived."""

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import modalign
from metrics import toy_metric
from modalign import _core
from modalign.cli import app
from modalign.metrics.cost import Sizes
from modalign.metrics.inputs import Graphs, PairedRows, mean_over_items
from modalign.metrics.registry import DEFAULT_METRICS, METRICS, NEEDS, Metric, metric_names, metrics_table, register
from modalign.metrics.sums import moments
from modalign.ops.neighborhoods import SCORES
from modalign.reference import neighborhoods as reference

ROOT = Path(__file__).resolve().parents[2]


def rows(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 10))
    return x, np.tanh(x) + 0.3 * rng.normal(size=(n, 10))


@pytest.fixture
def toy() -> Iterator[Metric]:
    register(toy_metric.METRIC)
    yield toy_metric.METRIC
    del METRICS[toy_metric.METRIC.name]


@pytest.mark.parametrize("name", METRICS)
def test_the_evaluator_agrees_with_the_public_function(name: str) -> None:
    x, y = rows()
    metric = METRICS[name]
    function = metric.load("score")
    evaluate = metric.load("evaluate")
    if metric.needs == "moments":
        assert evaluate(moments(x, y)) == function(x, y)
    elif metric.needs == "pairs":
        expected = function(x, y)
        if name == "information_imbalance":
            expected = function(x, y, metric="cosine").x_to_y
        if name == "retrieval":
            expected = expected.x_to_y.recall[1]
        assert evaluate(PairedRows(x, y)) == expected
    else:
        a, b = (torch.as_tensor(modalign.knn(side, 5).indices) for side in (x, y))
        graphs = Graphs(a, b, rows=(x, y) if metric.reads_rows else None)
        assert mean_over_items(evaluate(graphs)) == pytest.approx(function(x, y, 5), rel=1e-14)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.relabelled])
def test_relabelled_scores_are_those_of_the_permuted_rows(name: str) -> None:
    x, y = rows()
    metric = METRICS[name]
    s = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    if metric.needs == "pairs":
        value = metric.load("relabelled")(PairedRows(x, y))(s)
        expected = metric.load("evaluate")(PairedRows(x, y[s.numpy()]))
    else:
        a, b, c = (torch.as_tensor(modalign.knn(side, 5).indices) for side in (x, y, y[s.numpy()]))
        value = float(metric.load("relabelled")(Graphs(a, b))(s))
        expected = mean_over_items(metric.load("evaluate")(Graphs(a, c)))
    assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_costs_grow_with_the_data(name: str) -> None:
    small, large = Sizes(1000, 10, 64, 64), Sizes(10_000, 10, 64, 64)
    metric = METRICS[name]
    assert 0 < metric.seconds(small) < metric.seconds(large)
    assert metric.seconds(large, again=True) <= metric.seconds(large)
    assert (metric.cost.table_bytes is None) == (metric.needs != "pairs")


def test_registry_operator_and_core_name_the_same_scores() -> None:
    of_lists = {name for name, metric in METRICS.items() if metric.score.startswith("modalign.metrics.neighborhoods:")}
    assert of_lists == set(SCORES) - {"reciprocity"}
    assert set(SCORES) == set(reference.SCORES) | set(reference.FOLLOWED)
    assert set(SCORES) == set(_core.neighborhood_score_names())


def test_defaults_are_registered_and_options_exist() -> None:
    assert metric_names("align", DEFAULT_METRICS) == list(DEFAULT_METRICS)
    for metric in METRICS.values():
        options = inspect.signature(metric.load("score")).parameters
        assert ("metric" in options) == (
            metric.needs != "moments" and metric.name not in ("rsa", "rbf_cka", "svcca_code")
        )


def test_importing_the_registry_does_not_import_torch() -> None:
    command = "import sys, modalign.metrics.registry; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_metric_from_a_file_of_its_own(toy: Metric, tmp_path: Path) -> None:
    x, y = rows(300)
    score = modalign.align(x, y, ["shared_variance", "cka"], k=5, relabellings=19)["shared_variance"]
    assert score.value == pytest.approx(toy_metric.shared_variance(x, y), rel=1e-12)
    assert score.low is not None
    assert score.null is not None
    assert "| `shared_variance` | ratio of variances |" in metrics_table()
    for name, side in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", side)
    command = ["align", f"{tmp_path}/x.npy", f"{tmp_path}/y.npy", "--metrics", toy.name, "--null", "none", "--quiet"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    assert "ratio of variances" in result.output
    assert toy.name in metric_names("align", "all")


def test_a_name_is_taken_once(toy: Metric) -> None:
    with pytest.raises(ValueError, match="register: the name of a metric must be new, got 'shared_variance'"):
        register(toy)


def test_unknown_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="needs must be one of lists, graphs, moments, pairs, got 'triples'"):
        dataclasses.replace(METRICS["cka"], needs="triples")
    assert {metric.needs for metric in METRICS.values()} == set(NEEDS)


def test_the_page_shows_the_table_of_the_registry() -> None:
    page = (ROOT / "docs" / "alignment.md").read_text(encoding="utf-8")
    table = page.partition("<!-- metrics_table() -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == metrics_table(), "replace the table by what modalign.metrics.registry.metrics_table() returns"

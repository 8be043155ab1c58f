"""Groups, classes, ids and notes of ``align_layers`` are those of ``align``."""

import numpy as np
import pytest

from modalign import align, align_layers


def captions(items: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images that are repeated for each of three captions, the captions, and the images' numbers."""
    rng = np.random.default_rng(0)
    images = np.repeat(rng.normal(size=(items, 4)), 3, axis=0)
    return images, images + rng.normal(size=images.shape), np.arange(3 * items) // 3


@pytest.mark.parametrize("metric", ["mutual_knn", "jaccard_knn", "cka"])
@pytest.mark.parametrize("label", ["groups", "within"])
def test_one_layer_of_each_is_an_alignment(metric: str, label: str) -> None:
    x, y, groups = captions()
    labels = {label: groups if label == "groups" else np.arange(150) % 4}
    layers = align_layers([x], [y], metric, 5, relabellings=39, **labels)
    one = align(x, y, [metric], 5, intervals=False, null="relabelled", relabellings=39, **labels)[metric]
    assert layers.value == pytest.approx(one.value, rel=1e-12)
    assert layers.possible == pytest.approx(one.best, rel=1e-12)
    assert layers.null is not None
    assert one.null is not None
    assert layers.null.kind == one.null.kind
    # mutual_knn of align relabels expectations, that of layers four drawn orders
    assert layers.null.mean == pytest.approx(one.null.mean, rel=0.05)
    assert layers.settings["groups"] is (label == "groups")


def test_rows_of_layers_are_paired_by_name() -> None:
    x, y, _ = captions()
    moved = np.random.default_rng(1).permutation(150)[:140]
    result = align_layers([x, y], [y[moved]], k=5, ids=(np.arange(150), moved), relabellings=19)
    expected = align_layers([x[np.sort(moved)], y[np.sort(moved)]], [y[np.sort(moved)]], k=5, relabellings=19)
    assert result.matrix == expected.matrix
    assert result.notes[0].startswith("10 rows of x and 0 of y have no row of the same id")


def test_notes_say_what_ties_and_classes_do() -> None:
    x, y, groups = captions()
    result = align_layers([x], [x], k=5, within=groups, relabellings=19)
    assert any("neighbours tie" in note for note in result.notes)
    assert any("relabelling within the classes of within changes nothing" in note for note in result.notes)
    assert "  note: neighbours tie" in repr(result)
    assert not align_layers([y], [y], k=5, relabellings=19).notes
    with pytest.raises(ValueError, match="align_layers: groups relabels whole groups and within inside them"):
        align_layers([x], [y], groups=groups, within=groups)

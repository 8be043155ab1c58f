"""Mathematical properties that hold for any input, tested by Hypothesis."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modalign

shapes = st.tuples(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**31 - 1))
few_examples = settings(max_examples=25, deadline=None)


def pair(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    n, d, seed = shape
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, d, generator=generator, dtype=torch.float64).unbind()
    return x, y


@few_examples
@given(shapes, st.floats(0.05, 20))
def test_info_nce_is_symmetric_in_its_modalities(shape: tuple[int, int, int], temperature: float) -> None:
    x, y = pair(shape)
    loss, swapped = (modalign.info_nce(*args, temperature=temperature) for args in ((x, y), (y, x)))
    torch.testing.assert_close(loss, swapped, rtol=1e-12, atol=1e-12)


@few_examples
@given(shapes)
def test_permuting_the_pairs_changes_nothing(shape: tuple[int, int, int]) -> None:
    x, y = pair(shape)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(shape[2]))
    torch.testing.assert_close(modalign.info_nce(x[order], y[order]), modalign.info_nce(x, y), rtol=1e-12, atol=1e-12)


@few_examples
@given(shapes)
def test_info_nce_is_bounded_by_log_n_for_aligned_pairs_and_positive(shape: tuple[int, int, int]) -> None:
    x, _ = pair(shape)
    loss = modalign.info_nce(x, x, temperature=0.5).item()
    assert 0 <= loss <= np.log(len(x)) + 1e-12


@few_examples
@given(shapes)
def test_the_gradient_of_a_normalised_loss_is_orthogonal_to_its_row(shape: tuple[int, int, int]) -> None:
    x, y = pair(shape)
    x.requires_grad_()
    modalign.info_nce(x, y).backward()
    assert x.grad is not None
    assert float((x.grad * x.detach()).sum(1).abs().max()) < 1e-12


@few_examples
@given(shapes, st.floats(0.1, 10))
def test_mutual_knn_ignores_rotation_and_scale(shape: tuple[int, int, int], scale: float) -> None:
    x, _ = pair(shape)
    rotation, _ = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], dtype=torch.float64))
    k = min(3, len(x) - 1)
    if x.shape[1] > 1:  # in one dimension all cosines are 1 or -1, and a rotation may change the order of ties
        assert modalign.mutual_knn(x, scale * x @ rotation, k=k) > 1 - 1e-9


@few_examples
@given(shapes)
def test_mutual_knn_is_symmetric_and_is_1_for_equal_modalities(shape: tuple[int, int, int]) -> None:
    x, y = pair(shape)
    k = min(4, len(x) - 1)
    if x.shape[1] > 1:  # in one dimension all cosines are 1 or -1, and neighbours that tie are in random order
        assert modalign.mutual_knn(x, x, k=k) == 1
    assert modalign.mutual_knn(x, y, k=k) == modalign.mutual_knn(y, x, k=k)


@few_examples
@given(shapes)
def test_all_neighbours_are_shared_if_k_is_n_minus_1(shape: tuple[int, int, int]) -> None:
    x, y = pair(shape)
    assert modalign.mutual_knn(x, y, k=len(x) - 1) == 1


@few_examples
@given(shapes)
def test_cka_ignores_rotation_scale_and_shift(shape: tuple[int, int, int]) -> None:
    x, y = pair(shape)
    rotation, _ = torch.linalg.qr(torch.randn(y.shape[1], y.shape[1], dtype=torch.float64))
    moved = 3 * y @ rotation + 7
    assert abs(modalign.cka(x, y) - modalign.cka(x, moved)) < 1e-9
    assert 0 <= modalign.cka(x, y) <= 1 + 1e-12
    if len(x) > 4 and x.shape[1] > 1:
        assert abs(modalign.unbiased_cka(x, y) - modalign.unbiased_cka(x, moved)) < 1e-8

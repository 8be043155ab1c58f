"""What is no dense tensor of this process is refused with the line to write."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import Tensor, nn

import modalign
from modalign.losses.drop_ins import ClipLoss, MultipleNegativesRankingLoss, NTXentLoss, info_nce_loss

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
BANK = NTXentLoss(memory_bank_size=(8, 4))
LOSSES: dict[str, Callable[..., Tensor]] = {
    "info_nce": modalign.info_nce,
    "nt_xent": modalign.nt_xent,
    "sigmoid_loss": modalign.sigmoid_loss,
    "InfoNCE": modalign.InfoNCE(learnable=True),
    "ClipLoss": lambda x, y: ClipLoss()(x, y, 2.0),
    "NTXentLoss": BANK,
    "ranking": lambda x, y: MultipleNegativesRankingLoss(nn.Identity()).compute_loss_from_embeddings([x, y]),
    "info_nce_loss": info_nce_loss,
}
FOREIGN: dict[str, tuple[Any, str]] = {
    "array": (X.numpy(), r"got ndarray\. Pass torch\.from_numpy\("),
    "masked array": (np.ma.masked_array(X.numpy()), r"got MaskedArray\. Replace or drop its masked entries"),
    "list": (X.tolist(), r"got list\. Pass torch\.tensor\("),
    "list of tensors": (list(X), r"got list\. Pass torch\.stack\("),
    "data frame": (pd.DataFrame(X.numpy()), r"got DataFrame\. Pass torch\.from_numpy\(.*\.to_numpy\(\)\)"),
    "SciPy's sparse": (scipy.sparse.csr_array(X.numpy()), r"got csr_array\. Pass torch\.from_numpy\(.*\.toarray\(\)\)"),
    "text": ("x", "got str$"),
    "sparse": (X.to_sparse(), r"must be a dense tensor, got layout torch\.sparse_coo\. Pass .*\.to_dense\(\)"),
    "sparse rows": (X.to_sparse_csr(), r"must be a dense tensor, got layout torch\.sparse_csr"),
    "integers": (X.long(), "got torch.int64"),
    "complex": (X.to(torch.complex64), "must be .*float16.*, got torch.complex64$"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_of_other_kinds(loss: str, foreign: str) -> None:
    value, message = FOREIGN[foreign]
    for pair in ((value, value), (X, value), (value, X)):
        with pytest.raises(TypeError, match=message):
            LOSSES[loss](*pair)


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_without_values_do_not_meet_rows_with_values(loss: str) -> None:
    for pair in ((X, X.to("meta")), (X.to("meta"), X)):
        with pytest.raises(TypeError, match="share dtype and device"):
            LOSSES[loss](*pair)


def test_a_memory_bank_with_values_needs_rows_with_values() -> None:
    x = X.to("meta")
    with pytest.raises(TypeError, match=r'meta device\. Move the loss there with loss\.to\("meta"\)'):
        BANK(x, x)
    assert NTXentLoss(memory_bank_size=(8, 4)).to("meta")(x, x).shape == ()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("groups", list("aabbcc"), r"Pass torch\.from_numpy\(numpy\.unique\(groups, return_inverse=True\)\[1\]\)"),
        ("groups", pd.Series(list("aabbcc")), r"Pass torch\.from_numpy\(numpy\.unique\(groups, "),
        ("groups", [0, 0, 1, 1, 2, 2], r"groups must be a tensor of int64 .*, got list\. Pass torch\.tensor\(groups\)"),
        ("groups", pd.Series(range(6)), r"got Series\. Pass torch\.from_numpy\(groups\.to_numpy\(\)\)"),
        ("groups", torch.arange(6).to_sparse(), r"groups must be a dense tensor, .* Pass groups\.to_dense\(\)"),
        (
            "ignore",
            np.zeros(6, bool),
            r"of bool, got ndarray\. Pass torch\.from_numpy\(ignore\)",
        ),
        ("queue", X.to_sparse(), r"queue must be a dense tensor"),
        ("negatives", X.numpy()[:, None], r"negatives must be a torch tensor, got ndarray\. Pass"),
        (
            "teacher",
            (X.numpy(), X, 0.5),
            r"teacher's x must be a torch tensor, got ndarray\. Pass torch",
        ),
        ("temperature", torch.tensor(1j), "temperature must be .* real numbers, got dtype torch.complex64"),
        ("temperature", torch.tensor(True), "temperature must be .* real numbers, got dtype torch.bool"),
        ("temperature", torch.tensor(0.5, device="meta"), "one on the meta device, which has no value"),
        ("temperature", torch.tensor([0.5]).to_sparse(), r"temperature must be a dense tensor"),
    ],
)
def test_options_of_other_kinds(option: str, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        modalign.info_nce(X, X, **{option: value})


@pytest.mark.parametrize("number", [torch.nan, 0.0, -1.0])
@pytest.mark.parametrize("grad", [False, True])
def test_a_tensor_that_is_no_temperature(number: float, grad: bool) -> None:
    for shape in ((), (1,)):
        value = torch.full(shape, number, requires_grad=grad)
        for loss in (modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss, info_nce_loss):
            with pytest.raises(ValueError, match=f"{loss.__name__}: temperature must be positive and finite, got"):
                loss(X, X, temperature=value)
        with pytest.raises(ValueError, match="ClipLoss: logit_scale must be positive and finite, got"):
            ClipLoss()(X, X, value)


def test_a_chunk_is_cut_from_rows() -> None:
    rows = torch.nested.nested_tensor([X, X[:2]], layout=torch.jagged)
    with pytest.raises(TypeError, match=r"must be dense or sparse_coo, got layout torch\.jagged"):
        modalign.chunked_forward(nn.Identity(), rows, chunk_size=1)


def test_a_nested_tensor_has_our_sentence() -> None:
    for loss in (modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss):
        for layout in (torch.strided, torch.jagged):
            rows = torch.nested.nested_tensor([X, X[:2]], layout=layout)
            with pytest.raises(TypeError, match=r"y must have rows of one length, got a nested tensor\. Pass torch"):
                loss(X, rows)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "got nan$"), (1e-40, r"got 0 or less than 1 / 3.4e\+38$")])
def test_one_temperature_is_shown_once(value: float, message: str) -> None:
    for loss in (modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss):
        with pytest.raises(ValueError, match=message):
            loss(X, X, temperature=torch.tensor(value))

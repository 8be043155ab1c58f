"""The drop-in losses agree with values computed by the libraries that they replace, and with their formulas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from losses import make_drop_ins
from modalign.losses import drop_ins
from modalign.losses.drop_ins import ClipLoss, MultipleNegativesRankingLoss, NTXentLoss, info_nce_loss
from modalign.losses.drop_ins.sentence_transformers import DIRECTIONS
from tolerances import TOLERANCE, assert_close

VERSIONS, GOLDEN = make_drop_ins.read()
ONE_PROCESS = [(case, results) for case, results in GOLDEN if "sizes" not in case]
OURS = make_drop_ins.ours()


def name(case: dict[str, Any]) -> str:
    options = ",".join(f"{key}={value}" for key, value in case.items() if key not in {"loss", "seed", "dtype"})
    return f"{case['loss']}-{case['dtype']}-{options}"


def test_the_golden_file_names_the_versions_that_made_it() -> None:
    assert (
        VERSIONS.items() >= {"open_clip_torch": "3.3.0", "lightly": "1.6.0", "sentence_transformers": "6.2.0"}.items()
    )
    assert [case for case, _ in GOLDEN] == make_drop_ins.cases()


def largest_logit(case: dict[str, Any]) -> float:
    options = case.get("options", {})
    if case["loss"] == "NTXentLoss":
        return 1 / options["temperature"]
    rows = 1.0
    if options.get("similarity_fct") == "dot_score" or not case.get("unit", True):
        rows = (
            max(float(row.detach().norm()) for step in make_drop_ins.inputs(case) for column in step for row in column)
            ** 2
        )
    if "logit_scale" in case:
        return rows * case["logit_scale"] + abs(case.get("logit_bias", 0.0))
    return rows * (options.get("scale", 20.0) + options.get("hardness_strength", 0.0))


@pytest.mark.parametrize(("case", "expected"), ONE_PROCESS, ids=[name(case) for case, _ in ONE_PROCESS])
def test_gives_the_values_and_gradients_of_the_library(case: dict[str, Any], expected: list[np.ndarray]) -> None:
    compare(case, make_drop_ins.run(case, OURS), expected)


def compare(case: dict[str, Any], results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    tolerance = TOLERANCE[getattr(torch, case["dtype"])]
    (losses, *gradients), (wanted, *wanted_gradients) = results, expected
    assert_close(torch.tensor(losses), torch.tensor(wanted), 1 + largest_logit(case), tolerance.sums, "loss")
    for i, (actual, exact) in enumerate(zip(gradients, wanted_gradients, strict=True)):
        size = max(1.0, float(np.abs(exact).max()))
        # both losses round: the library's in a matrix of logits, ours in tiles
        assert_close(torch.tensor(actual), torch.tensor(exact), size, 2 * tolerance.gradient, f"gradient {i}")
        assert actual.dtype == exact.dtype


# ---- info_nce_loss against its formula in float64

COSINES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "in-batch": lambda q, k, _: q @ k.T,
    "unpaired": lambda q, k, other: torch.cat([(q * k).sum(1, keepdim=True), q @ other.T], 1),
    "paired": lambda q, k, other: torch.cat([(q * k).sum(1, keepdim=True), (q[:, None] * other).sum(2)], 1),
}


def dense_info_nce(mode: str, tensors: list[Tensor], temperature: float, reduction: str) -> Tensor:
    query, key, *negatives = (F.normalize(tensor, dim=-1) for tensor in tensors)
    logits = COSINES[mode](query, key, negatives[0] if negatives else query) / temperature
    target = torch.arange(len(query)) if mode == "in-batch" else torch.zeros(len(query), dtype=torch.long)
    return F.cross_entropy(logits, target, reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("temperature", [0.1, 0.01])
@pytest.mark.parametrize("n", [1, 13])
@pytest.mark.parametrize("mode", COSINES)
def test_info_nce_loss_is_its_formula(
    mode: str, n: int, temperature: float, reduction: str, dtype: torch.dtype
) -> None:
    shapes = {"in-batch": [], "unpaired": [(29, 7)], "paired": [(n, 5, 7)]}[mode]
    exact = [torch.randn(shape, dtype=torch.float64) for shape in [(n, 7), (n, 7), *shapes]]
    if dtype == torch.bfloat16:  # normalised rows are rounded, but for unit rows with one entry
        exact = [F.one_hot(tensor.argmax(-1), 7).double() for tensor in exact]
    exact = [tensor.to(dtype).double().requires_grad_() for tensor in exact]
    ours = [tensor.detach().to(dtype).requires_grad_() for tensor in exact]
    expected = dense_info_nce(mode, exact, temperature, reduction)
    negatives = {"negative_mode": mode} if mode != "in-batch" else {}
    actual = info_nce_loss(*ours, temperature=temperature, reduction=reduction, **negatives)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    size = (1 + 1 / temperature) * (n if reduction == "sum" else 1)
    assert_close(actual.detach(), expected.detach(), size, TOLERANCE[dtype].sums, "loss")
    weights = torch.rand(expected.shape, dtype=torch.float64)
    expected.backward(weights)
    actual.backward(weights.to(actual.dtype))
    largest = max(float(tensor.grad.abs().max()) for tensor in exact) + 1e-3
    for i, (actual, expected) in enumerate(zip(ours, exact, strict=True)):
        assert_close(actual.grad, expected.grad, largest, TOLERANCE[dtype].gradient, f"gradient {i}")


# ---- properties


def ranking(**options: Any) -> MultipleNegativesRankingLoss:
    return MultipleNegativesRankingLoss(make_drop_ins.Columns(), **options)


def test_the_mean_of_both_ways_round_is_the_symmetric_loss() -> None:
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    unit = [F.normalize(tensor, dim=-1) for tensor in (x, y)]
    mean = (info_nce_loss(x, y) + info_nce_loss(y, x)) / 2
    torch.testing.assert_close(mean, ClipLoss()(*unit, 10.0))


def test_a_logit_bias_changes_nothing_and_its_gradient_is_zero() -> None:
    x, y = torch.randn(9, 4), torch.randn(9, 4)
    bias = torch.tensor([-10.0], requires_grad=True)
    loss = ClipLoss()(x, y, 3.0, logit_bias=bias)
    loss.backward()
    assert loss.equal(ClipLoss()(x, y, 3.0))
    assert bias.grad.tolist() == [0.0]


def test_a_scale_of_shape_one_is_a_scale() -> None:
    x, y = torch.randn(9, 4), torch.randn(9, 4)
    scale = torch.tensor([3.0], requires_grad=True)
    ClipLoss()(x, y, scale).backward()
    assert scale.grad.shape == (1,)
    assert ClipLoss()(x, y, scale).equal(ClipLoss()(x, y, 3.0))


def test_ranking_loss_of_pairs_is_info_nce_loss() -> None:
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    loss = ranking(scale=10.0)
    features = iter([{"embedding": x}, {"embedding": y}])
    torch.testing.assert_close(loss(features, torch.zeros(9)), info_nce_loss(x, y))
    assert loss.get_config_dict()["scale"] == 10.0
    assert loss.temperature == 0.1


def test_all_directions_of_pairs_are_simclr_per_pair() -> None:
    """One softmax over all four pools joins the anchors q_i and d_i of NT-Xent."""
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    loss = ranking(scale=2.0, directions=DIRECTIONS)
    rows = F.normalize(torch.cat([x, y]), dim=1)
    logits = (2 * rows @ rows.T).fill_diagonal_(-torch.inf)
    positive = logits.diagonal(9)
    expected = (torch.logaddexp(*logits.logsumexp(1).chunk(2)) - positive).mean()
    torch.testing.assert_close(loss.compute_loss_from_embeddings([x, y]), expected)


def test_the_memory_bank_keeps_the_latest_keys() -> None:
    loss = NTXentLoss(memory_bank_size=(5, 4))
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    before = loss.bank.clone()
    with torch.no_grad():
        loss(x.detach(), y)
    assert loss.bank.equal(before)  # without a gradient the call is an evaluation, which does not change the bank
    loss(x, y)
    assert loss.bank.equal(torch.cat([F.normalize(y), before[3:]]))
    loss(x, -y)
    assert loss.bank.equal(torch.cat([F.normalize(y), -F.normalize(y)[:2]]))
    loss(x, y.flip(0))  # the bank begins anew
    assert loss.bank[:3].equal(F.normalize(y.flip(0)))
    assert not loss.state_dict()


def test_a_batch_that_is_refused_stays_out_of_the_bank() -> None:
    loss = NTXentLoss(memory_bank_size=(8, 4))
    with pytest.raises(ValueError, match="must be finite"):
        loss(torch.full((3, 4), torch.nan, requires_grad=True), torch.full((3, 4), torch.nan))
    assert bool(loss.bank.isfinite().all())
    assert loss.position == 0


@pytest.mark.parametrize("mode", [None, "unpaired", "paired"])
def test_a_temperature_may_be_trained(mode: str | None) -> None:
    query, key = torch.randn(2, 5, 4, dtype=torch.float64).unbind()
    negatives = {None: None, "unpaired": torch.randn(6, 4).double(), "paired": torch.randn(5, 6, 4).double()}[mode]
    more = {} if mode is None else {"negative_mode": mode}

    def loss(temperature: Tensor) -> Tensor:
        return info_nce_loss(query, key, negatives, temperature=temperature, **more)

    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, temperature)
    torch.testing.assert_close(loss(temperature), loss(0.3))  # type: ignore[arg-type]


def test_the_backward_pass_sees_the_bank_of_its_forward_pass() -> None:
    loss = NTXentLoss(memory_bank_size=(5, 4)).double()
    bank = loss.bank.clone()
    x, y = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 4, dtype=torch.float64)
    loss(x, y).backward()
    (expected,) = torch.autograd.grad(info_nce_loss(x, y, bank, temperature=0.5), x)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("loss", ["clip", "ranking", "bank", "unpaired"])
def test_half_precision_gives_a_float32_loss(loss: str) -> None:
    x, y, z = (torch.randn(6, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    value = {
        "clip": lambda: ClipLoss()(x, y, torch.tensor(3.0)),
        "ranking": lambda: MultipleNegativesRankingLoss(make_drop_ins.Columns()).compute_loss_from_embeddings(
            [x, y, z]
        ),
        "bank": lambda: NTXentLoss(memory_bank_size=(8, 4))(x, y),
        "unpaired": lambda: info_nce_loss(x, y, z),
    }[loss]()
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == torch.bfloat16
    assert bool(x.grad.isfinite().all())


def test_gathering_changes_nothing_in_one_process() -> None:
    x, y = torch.randn(2, 6, 4).unbind()
    assert NTXentLoss(gather_distributed=True)(x, y).equal(NTXentLoss()(x, y))
    columns = [x, y, -x]
    alone, gathered = (ranking(gather_across_devices=gather) for gather in (False, True))
    assert gathered.compute_loss_from_embeddings(columns).equal(alone.compute_loss_from_embeddings(columns))
    assert gathered.get_config_dict()["gather_across_devices"] is True


def test_info_nce_is_that_of_info_nce_pytorch() -> None:
    """The name that its users import has the original's direction and temperature, not those of modalign.info_nce."""
    query, key = torch.randn(2, 6, 4, dtype=torch.float64).unbind()
    negatives = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = dense_info_nce("in-batch", [query, key], 0.1, "mean")
    torch.testing.assert_close(drop_ins.info_nce(query, key), expected)
    torch.testing.assert_close(drop_ins.InfoNCE()(query, key), expected)
    expected = dense_info_nce("paired", [query, key, negatives], 0.3, "none")
    paired = drop_ins.InfoNCE(temperature=0.3, reduction="none", negative_mode="paired")
    torch.testing.assert_close(paired(query, key, negatives), expected)
    torch.testing.assert_close(drop_ins.info_nce(query, key, negatives, 0.3, "none", "paired"), expected)
    assert (paired.temperature, paired.reduction, paired.negative_mode) == (0.3, "none", "paired")


def test_attributes_of_the_originals() -> None:
    x, y = torch.randn(2, 6, 4).unbind()
    clip = ClipLoss(cache_labels=True)
    images, texts = clip.get_logits(x, y, 3.0, logit_bias=-1.0)
    torch.testing.assert_close(images, 3 * x @ y.T - 1)
    torch.testing.assert_close(texts, images.T)
    labels = clip.get_ground_truth(x.device, 6)
    assert labels.equal(torch.arange(6))
    assert clip.labels == {x.device: labels}
    assert clip.get_ground_truth(x.device, 6) is labels
    assert clip.prev_num_logits == 6
    expected = (F.cross_entropy(images, labels) + F.cross_entropy(texts, labels)) / 2
    torch.testing.assert_close(clip(x, y, 3.0), expected)
    assert ClipLoss().get_ground_truth(x.device, 3).equal(torch.arange(3))
    bank = NTXentLoss(memory_bank_size=(5, 4))
    assert bank.memory_bank.size == (5, 4)
    assert bank.bank is bank.memory_bank.bank
    assert bank.memory_bank.bank_ptr.tolist() == [0]
    bank(x[:3].requires_grad_(), y[:3])
    assert bank.memory_bank.bank_ptr.tolist() == [3]
    assert bank.eps == 1e-8
    assert isinstance(bank.cross_entropy, torch.nn.CrossEntropyLoss)


@pytest.mark.parametrize(
    ("options", "first_author"),
    [
        ({}, "author={Aaron van den Oord and"),
        ({"directions": DIRECTIONS}, "author={Zehan Li and"),
        (
            {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
            "author={Michael Günther",
        ),
        ({"directions": ("query_to_doc", "doc_to_query")}, "author={Aaron van den Oord and"),
    ],
)
def test_citations_are_those_of_the_original(options: dict[str, Any], first_author: str) -> None:
    citation = ranking(**options).citation
    assert citation.startswith("\n@misc{")
    assert citation.endswith("},\n}\n")
    assert first_author in citation


class Tokens(torch.nn.Module):
    """A model of tokens that keeps the numbers of rows it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, features: dict[str, Any]) -> dict[str, Tensor]:
        self.rows.append(len(features["input_ids"]))
        ids, mask = features["input_ids"].double(), features["attention_mask"].double()
        return {"sentence_embedding": torch.stack([(ids * mask).sum(1), (ids.square() * mask).sum(1)], 1)}


def tokens(length: int, **more: object) -> dict[str, Any]:
    ids = torch.randint(1, 9, (2, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ([tokens(3), tokens(4), tokens(5)], [2, 4]),  # documents merge, padded to one length; queries do not
        ([tokens(3), tokens(4)], [2, 2]),
        ([tokens(3), tokens(4, prompt_length=1), tokens(5, prompt_length=1)], [2, 4]),
        ([tokens(3), tokens(4, prompt_length=1), tokens(5, prompt_length=2)], [2, 2, 2]),
        ([tokens(3), tokens(4, pixels=torch.ones(2, 3)), tokens(4, pixels=torch.ones(2, 4))], [2, 2, 2]),
        ([tokens(3), tokens(4, grid=torch.ones(5, 3)), tokens(4, grid=torch.ones(5, 3))], [2, 2, 2]),
        ([tokens(3), tokens(4, names=np.zeros(2)), tokens(4, names=np.zeros(2))], [2, 2, 2]),
        ([tokens(3), tokens(4), tokens(4, cu_seq_lens_q=torch.ones(3))], [2, 2, 2]),
    ],
)
def test_the_model_is_called_as_often_as_by_the_original(columns: list[dict[str, Any]], rows: list[int]) -> None:
    model = Tokens()
    loss = MultipleNegativesRankingLoss(model, scale=0.5)
    value = loss(iter(columns), None)
    assert model.rows == rows
    embeddings = [Tokens()(column)["sentence_embedding"] for column in columns]
    torch.testing.assert_close(value, loss.compute_loss_from_embeddings(embeddings))


# ---- refusals and mistakes


def cos_sim(x: Tensor, y: Tensor) -> Tensor:
    """A function with the name of sentence-transformers' function, from another module."""
    return x @ y.T


ROWS = torch.eye(4)

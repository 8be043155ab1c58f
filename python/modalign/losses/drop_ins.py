"""Well-known contrastive losses under their own signatures, without the similarity matrix the originals store.

Each takes the arguments of the library it is named after and gives its value and gradients, so that changing an import
is enough. What a loss cannot do without the matrix or without other processes it refuses when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from modalign.common.checks import number
from modalign.common.deterministic import softplus
from modalign.common.dtypes import FLOATS, accumulator
from modalign.losses.functional import info_nce, nt_xent
from modalign.losses.inputs import readable
from modalign.losses.pools import dots, union
from modalign.losses.reduction import REDUCTIONS
from modalign.ops.info_nce import info_nce_forward

__all__ = ["ClipLoss", "MultipleNegativesRankingLoss", "NTXentLoss", "info_nce_loss"]

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
HARDNESS_MODES = (None, "in_batch_negatives", "hard_negatives", "all_negatives")
SIMILARITIES = ("cos_sim", "dot_score")


class ClipLoss(nn.Module):
    """OpenCLIP's ``ClipLoss``: the symmetric InfoNCE of paired image and text features.

        loss = mean_i (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii
        S_ij = logit_scale * <image_features_i, text_features_j>

    Args:
        local_loss, gather_with_grad, rank, world_size, use_horovod: about several processes; world_size must be 1, with
            which the others have no effect.
        cache_labels: no effect: there are no labels to cache.

    ``loss(image_features, text_features, logit_scale, logit_bias=None, output_dict=False)`` takes features (n, d), used
    as they are (OpenCLIP's models normalise them), and the scale as a number or a tensor with one element, whose
    gradient is exact. A logit_bias is added to every logit, which changes nothing in a softmax: the loss is the same
    with and without it and its gradient is zero. Returns the loss, float64 for float64 features and float32 otherwise
    (the original keeps half precision), or ``{"contrastive_loss": loss}`` with output_dict. ``get_logits`` and
    ``get_ground_truth`` have no counterpart: the logits are what is never stored. Peak memory O(n d).

    Raises:
        NotImplementedError: world_size > 1.
        ValueError: a scale or bias with more than one element, and what ``modalign.info_nce`` refuses.

    Source: open_clip_torch 3.3.0; Radford et al. 2021 (arXiv:2103.00020).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import ClipLoss
        >>> image, text = torch.eye(4), torch.eye(4)
        >>> round(ClipLoss()(image, text, torch.tensor(2.0)).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        if world_size > 1:
            raise NotImplementedError(
                f"ClipLoss: world_size must be 1, got {world_size}: the loss is of the rows of one process. Gather the "
                "features with modalign.gather first, then call it on all of them"
            )
        self.local_loss, self.gather_with_grad, self.cache_labels = local_loss, gather_with_grad, cache_labels
        self.rank, self.world_size, self.use_horovod = rank, world_size, use_horovod

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        _require_rows("ClipLoss", image_features=image_features, text_features=text_features)
        if isinstance(logit_scale, Tensor):
            logit_scale = _one("logit_scale", logit_scale).to(accumulator(image_features.dtype))
        elif not 0 < number("ClipLoss", "logit_scale", logit_scale) < math.inf:
            raise ValueError(f"ClipLoss: logit_scale must be positive and finite, got {logit_scale}")
        loss = info_nce(image_features, text_features, temperature=1 / logit_scale, normalize=False)
        if isinstance(logit_bias, Tensor):
            # a trained bias stays in the graph, as distributed training wants, with the gradient it has: zero
            loss = loss + 0 * _one("logit_bias", logit_bias).to(loss.dtype)
        return {"contrastive_loss": loss} if output_dict else loss


class MultipleNegativesRankingLoss(nn.Module):
    """sentence-transformers' ``MultipleNegativesRankingLoss``: each query against the documents of the whole batch.

    Column 0 of the batch holds the queries q_i, column 1 their documents d_i, and the columns after it hard negatives
    h_ci, which every query of the batch is compared with. With s(a, b) = scale * cos(a, b) the pools of candidates are

        query_to_doc    s(q_i, d_j), s(q_i, h_cj)   all j        query_to_query  s(q_i, q_j)   j != i
        doc_to_query    s(d_i, q_j)   all j                      doc_to_doc      s(d_i, d_j), s(d_i, h_cj)   j != i

    and loss = mean_i log Z_i - s(q_i, d_i), where Z_i sums the exponentials of all chosen pools (joint), or log Z_i is
    the mean of the pools' log-sum-exps (per_direction).

    Args:
        model: called with the features of one column, returns a mapping with "sentence_embedding" (n, d). The original
            may merge columns into one call: faster, and the same but for the masks of dropout.
        scale: 1 / temperature, positive.
        similarity_fct: cosine ("cos_sim", or sentence-transformers' function of that name) or inner product
            ("dot_score", likewise).
        gather_across_devices: must be False.
        directions: the pools, "query_to_doc" among them.
        partition_mode: "joint", or "per_direction" (for the pools that hold the positive: query_to_doc, doc_to_query).
        hardness_mode: which logits of query_to_doc get hardness_strength * cos more, the cosine held constant for the
            gradient: "in_batch_negatives" (documents and hard negatives of the other rows), "hard_negatives" (those of
            the own row), "all_negatives" (both) or None.
        hardness_strength: not negative.

    ``loss(sentence_features, labels=None)`` takes the features of each column; labels are ignored, as in the original.
    Returns a scalar, float64 for float64 embeddings and float32 otherwise. With n rows and k columns, peak memory is
    O(n k d), never O(n^2 k).

    Raises:
        NotImplementedError: gather_across_devices, or another similarity_fct: a function of two tables returns their
            whole matrix.
        ValueError: an option with no meaning; fewer than two columns, or columns of different shapes.
        TypeError: columns of different dtypes or devices.

    Source: sentence-transformers 6.2.0; Henderson et al. 2017 (arXiv:1705.00652); directions, Li et al. 2023
    (arXiv:2308.03281); hardness, Lan et al. 2025 (arXiv:2503.04812).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import MultipleNegativesRankingLoss
        >>> model = lambda features: {"sentence_embedding": features["x"]}
        >>> loss = MultipleNegativesRankingLoss(model, scale=2.0)
        >>> query, document, negative = torch.eye(4), torch.eye(4), -torch.eye(4)
        >>> value = loss([{"x": query}, {"x": document}, {"x": negative}])
        >>> round(value.item(), 4)  # log(1 + 6 exp(-2) + exp(-4))
        0.6045
    """

    def __init__(
        self,
        model: Callable[[dict[str, Any]], Any],
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] | str = "cos_sim",
        gather_across_devices: bool = False,
        directions: str | Sequence[str] = ("query_to_doc",),
        partition_mode: str = "joint",
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < number("MultipleNegativesRankingLoss", "scale", scale) < math.inf:
            raise ValueError(f"MultipleNegativesRankingLoss: scale must be positive and finite, got {scale}")
        if gather_across_devices:
            raise NotImplementedError(
                "MultipleNegativesRankingLoss: gather_across_devices must be False: the loss is of the rows of one "
                "process. Gather the embeddings with modalign.gather first, then call compute_loss_from_embeddings"
            )
        directions = (directions,) if isinstance(directions, str) else tuple(directions)
        if "query_to_doc" not in directions or not set(directions) <= set(DIRECTIONS):
            raise ValueError(
                "MultipleNegativesRankingLoss: directions must hold 'query_to_doc', which has the positive, and others "
                f"of {DIRECTIONS}, got {directions}"
            )
        if partition_mode not in ("joint", "per_direction"):
            raise ValueError(
                "MultipleNegativesRankingLoss: partition_mode must be 'joint' or 'per_direction', "
                f"got {partition_mode!r}"
            )
        if partition_mode == "per_direction" and not set(directions) <= {"query_to_doc", "doc_to_query"}:
            raise ValueError(
                "MultipleNegativesRankingLoss: 'per_direction' is for query_to_doc and doc_to_query, whose pools hold "
                f"the positive, got {directions}"
            )
        if hardness_mode not in HARDNESS_MODES:
            raise ValueError(
                f"MultipleNegativesRankingLoss: hardness_mode must be one of {HARDNESS_MODES}, got {hardness_mode!r}"
            )
        if not 0 <= hardness_strength < math.inf:
            raise ValueError(
                "MultipleNegativesRankingLoss: hardness_strength must be finite and not negative, "
                f"got {hardness_strength}"
            )
        self.model, self.scale, self.similarity = model, float(scale), _similarity(similarity_fct)
        self.similarity_fct, self.gather_across_devices = similarity_fct, gather_across_devices
        self.directions, self.partition_mode = directions, partition_mode
        self.hardness_mode, self.hardness_strength = hardness_mode, float(hardness_strength)

    @property
    def temperature(self) -> float:
        return 1 / self.scale

    def get_config_dict(self) -> dict[str, Any]:
        """The options, as the original reports them in model cards."""
        return {
            "scale": self.scale,
            "similarity_fct": self.similarity,
            "gather_across_devices": self.gather_across_devices,
            "directions": self.directions,
            "partition_mode": self.partition_mode,
            "hardness_mode": self.hardness_mode,
            "hardness_strength": self.hardness_strength,
        }

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        columns = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return self.compute_loss_from_embeddings(columns, labels)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        _require_rows("MultipleNegativesRankingLoss", **{f"column {i}": column for i, column in enumerate(embeddings)})
        shapes = [tuple(column.shape) for column in embeddings]
        if len(shapes) < 2 or len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
            raise ValueError(
                "MultipleNegativesRankingLoss: the columns must be two or more of one shape (n, d), not empty, "
                f"got shapes {shapes}"
            )
        kinds = [(column.dtype, column.device) for column in embeddings]
        if len(set(kinds)) > 1:
            raise TypeError(f"MultipleNegativesRankingLoss: the columns must share dtype and device, got {kinds}")
        if self.similarity == "cos_sim":
            embeddings = [_unit(column) for column in embeddings]
        queries, *columns = embeddings
        documents, first = torch.cat(columns), columns[0]
        ids = torch.arange(len(queries), device=queries.device)
        document_ids = ids.repeat(len(columns))
        own = torch.stack([dots(queries, column) for column in columns], dim=1)
        # pools of negatives alone: nothing cancels where the positive outweighs them
        log_negatives = {
            "query_to_doc": lambda: self._log_documents(queries, documents, ids, document_ids, own),
            "query_to_query": lambda: _log_pool(queries, queries, self.scale, ids, ids),
            "doc_to_query": lambda: _log_pool(first, queries, self.scale, ids, ids),
            "doc_to_doc": lambda: _log_pool(first, documents, self.scale, ids, document_ids),
        }
        pools = torch.stack([log_negatives[name]() for name in DIRECTIONS if name in self.directions])
        positive = self.scale * own[:, 0]
        if self.partition_mode == "per_direction":
            return softplus(pools - positive).mean()
        # the positive is in two pools of the joint sum if doc_to_query is there
        times = 1 + ("doc_to_query" in self.directions)
        return math.log(times) + softplus(union(pools, 0) - positive - math.log(times)).mean()

    def _log_documents(
        self, queries: Tensor, documents: Tensor, ids: Tensor, document_ids: Tensor, own: Tensor
    ) -> Tensor:
        """The log-sum-exp of query_to_doc's negatives. Hardness treats the other rows alike, so their sum is one tiled
        pass; the few logits of the own row's hard negatives (``own``: [n, columns], unscaled, the positive first) are
        written out."""
        strength = self.hardness_strength if self.hardness_mode else 0.0
        if strength == 0 or self.hardness_mode == "hard_negatives":
            others = _log_pool(queries, documents, self.scale, ids, document_ids)
        else:
            # (scale + strength) cos with the gradient of scale cos
            share = self.scale / (self.scale + strength)
            hardened = (_damped(queries, share), _damped(documents, share))
            others = _log_pool(*hardened, self.scale + strength, ids, document_ids)
        hard = own[:, 1:]
        logits = self.scale * hard
        if self.hardness_mode != "in_batch_negatives":
            logits = logits + strength * hard.detach()
        return union(torch.cat([others[:, None], logits], dim=1), 1)


class NTXentLoss(nn.Module):
    """lightly's ``NTXentLoss``: SimCLR's loss of two views, or MoCo's with a memory bank.

    Without a bank the 2n rows of both views are anchors, each against all others but itself (``modalign.nt_xent``).
    With a bank b_1, ..., b_m of earlier second views, and cosines over the temperature,

        loss = mean_i log(exp S(x_i, y_i) + sum_k exp S(x_i, b_k)) - S(x_i, y_i)

    Args:
        temperature: positive.
        memory_bank_size: 0 for none, or (rows m, features d). The bank is the buffer ``bank``, random unit rows at
            first, not part of the state dict. After a step whose out0 requires a gradient the batch's out1 takes the
            place of the oldest rows; a batch that passes the bank's end is cut there, as in lightly.
        gather_distributed: must be False.

    ``loss(out0, out1)`` takes two views (n, d), normalised here, and returns a scalar, float64 for float64 views and
    float32 otherwise. Peak memory O((n + m) d), never O(n^2) or O(n m).

    Raises:
        NotImplementedError: gather_distributed.
        ValueError: a temperature that is not positive (lightly takes negative ones too), a memory_bank_size that is not
            0 or (m, d), views that do not fit the bank, and what ``modalign.nt_xent`` refuses.

    Source: lightly 1.6.0; Chen et al. 2020 (arXiv:2002.05709), He et al. 2020 (arXiv:1911.05722).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import NTXentLoss
        >>> round(NTXentLoss(temperature=0.5)(torch.eye(4), torch.eye(4)).item(), 4)  # log(1 + 6 exp(-2))
        0.5944
        >>> loss = NTXentLoss(memory_bank_size=(64, 4))
        >>> loss(torch.eye(4, requires_grad=True), torch.eye(4)).backward()
        >>> loss.bank[:4].equal(torch.eye(4))
        True
    """

    bank: Tensor

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        _require_temperature("NTXentLoss", temperature)
        if gather_distributed:
            raise NotImplementedError(
                "NTXentLoss: gather_distributed must be False: the loss is of the rows of one process. Gather the "
                "views with modalign.gather first, then call it on all of them"
            )
        size = (memory_bank_size,) if isinstance(memory_bank_size, int) else tuple(memory_bank_size)
        if size != (0,) and (len(size) != 2 or min(size) < 0):
            raise ValueError(f"NTXentLoss: memory_bank_size must be 0 or (rows, features), got {memory_bank_size}")
        self.temperature, self.gather_distributed = temperature, gather_distributed
        self.size: tuple[int, ...] = size
        self.position = 0
        self.register_buffer("bank", F.normalize(torch.randn(size), dim=-1), persistent=False)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        if self.size[0] == 0:
            return nt_xent(out0, out1, temperature=self.temperature)
        _require_rows("NTXentLoss", out0=out0, out1=out1)
        if out0.ndim != 2 or out0.shape != out1.shape or out0.shape[1] != self.size[1] or len(out0) == 0:
            raise ValueError(
                f"NTXentLoss: out0 and out1 must be (n, {self.size[1]}), as the memory bank is, "
                f"got {tuple(out0.shape)} and {tuple(out1.shape)}"
            )
        query, key = _unit(out0), _unit(out1)
        # a copy: the bank changes before the backward pass reads it
        negatives = self.bank.to(query, copy=True)
        scale = 1 / self.temperature
        loss = _cross_entropy(scale * dots(query, key), _log_pool(query, negatives, scale)).mean()
        if out0.requires_grad:  # after the rows have been found fit
            self._enqueue(key.detach())
        return loss

    def _enqueue(self, keys: Tensor) -> None:
        stop = min(self.position + len(keys), self.size[0])
        self.bank[self.position : stop] = keys[: stop - self.position].to(self.bank)
        self.position = stop % self.size[0]


def info_nce_loss(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: str = "mean",
    negative_mode: str = "unpaired",
) -> Tensor:
    """InfoNCE in one direction, as proposed for ``torch.nn.functional`` and as the package info-nce-pytorch has it.

    With cosines over the temperature, S(a, b) = cos(a, b) / temperature, and the negatives N_i of query i,

        loss_i = log(exp S(q_i, p_i) + sum_{k in N_i} exp S(q_i, k)) - S(q_i, p_i)

    Args:
        query, positive_key: (n, d), row i of one paired with row i of the other; normalised here.
        negative_keys: None: N_i are the positive keys of the other rows. (m, d): one set for all queries, and the
            other rows' positive keys are no negatives then (MoCo's form).
        temperature: positive; a float or a tensor with one element, which gets its gradient.
        reduction: "mean", "sum" or "none" (shape (n,)).
        negative_mode: "unpaired", or "paired" for negative_keys (n, m, d), row i's own. The proposal to PyTorch has the
            unpaired form alone.

    Returns:
        The loss, float64 for float64 inputs and float32 otherwise. Averaging it over both ways round is the symmetric
        loss, ``modalign.info_nce``. Peak memory O((n + m) d), or O(n m d) for paired negatives, as their own size is.

    Raises:
        ValueError: shapes that do not fit, a temperature that is not positive, an unknown reduction or mode.
        TypeError: dtypes or devices that differ.

    Source: van den Oord et al. 2018 (arXiv:1807.03748); pytorch/pytorch pull request 195380; info-nce-pytorch 0.1.4.

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import info_nce_loss
        >>> query, key = torch.eye(4), torch.eye(4)
        >>> round(info_nce_loss(query, key, temperature=0.5).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
        >>> round(info_nce_loss(query, key, -torch.eye(4)[:2], temperature=0.5, reduction="none")[0].item(), 4)
        0.1429
    """
    if not isinstance(temperature, Tensor):
        _require_temperature("info_nce_loss", temperature)
    elif temperature.numel() != 1:
        raise ValueError(f"info_nce_loss: temperature must have one element, got shape {tuple(temperature.shape)}")
    elif readable(temperature):
        _require_temperature("info_nce_loss", temperature.item())
    if reduction not in REDUCTIONS:
        raise ValueError(f"info_nce_loss: reduction must be one of {REDUCTIONS}, got {reduction!r}")
    if negative_mode not in ("unpaired", "paired"):
        raise ValueError(f"info_nce_loss: negative_mode must be 'unpaired' or 'paired', got {negative_mode!r}")
    _require_rows("info_nce_loss", query=query, positive_key=positive_key)
    if query.ndim != 2 or query.shape != positive_key.shape:
        raise ValueError(
            "info_nce_loss: query and positive_key must have one shape (n, d), "
            f"got {tuple(query.shape)} and {tuple(positive_key.shape)}"
        )
    if query.numel() == 0:
        raise ValueError(f"info_nce_loss: query and positive_key must not be empty, got {tuple(query.shape)}")
    if negative_keys is None:
        in_batch: Tensor = info_nce(
            query, positive_key, temperature=temperature, direction="x_to_y", reduction=reduction
        )
        return in_batch
    _require_rows("info_nce_loss", negative_keys=negative_keys)
    paired = negative_mode == "paired"
    wanted = (*query.shape[:1], "m", query.shape[1]) if paired else ("m", query.shape[1])
    shape = tuple(negative_keys.shape)
    if len(shape) != len(wanted) or 0 in shape or (*shape[:-2], "m", shape[-1]) != wanted:
        raise ValueError(
            f"info_nce_loss: {negative_mode} negative_keys must be ({', '.join(map(str, wanted))}) with m >= 1 for "
            f"query {tuple(query.shape)}, got {shape}"
        )
    for name, tensor in (("positive_key", positive_key), ("negative_keys", negative_keys)):
        if tensor.dtype != query.dtype or tensor.device != query.device:
            raise TypeError(
                f"info_nce_loss: query and {name} must share dtype and device, "
                f"got {query.dtype} {query.device} and {tensor.dtype} {tensor.device}"
            )
    query, positive_key, negative_keys = _unit(query), _unit(positive_key), _unit(negative_keys)
    scale = 1 / temperature
    if isinstance(scale, Tensor):
        scale = scale.reshape(()).to(query.device, accumulator(query.dtype))
    if paired:
        log_pool = (scale * dots(query[:, None], negative_keys)).logsumexp(1)
    else:
        log_pool = _log_pool(query, negative_keys, scale)
    loss = _cross_entropy(scale * dots(query, positive_key), log_pool)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _log_pool(
    x: Tensor, y: Tensor, scale: float | Tensor, x_id: Tensor | None = None, y_id: Tensor | None = None
) -> Tensor:
    """log sum_j exp(scale <x_i, y_j>) over the j with another id than i. x: [n, d], y: [m, d]; result [n]."""
    scales = torch.as_tensor(scale, dtype=accumulator(x.dtype), device=x.device).expand(1, len(x))
    ids = (None, None) if x_id is None or y_id is None else (x_id[None], y_id[None])
    mask = "none" if x_id is None else "same"
    row_lse: Tensor = info_nce_forward(x[None], y[None], scales, *ids, None, None, mask, False, False, 0, "auto")[0]
    return row_lse[0]


def _cross_entropy(positive: Tensor, log_pool: Tensor) -> Tensor:
    """log(exp positive + exp log_pool) - positive, for a pool without the positive; exact where it is small."""
    return softplus(log_pool - positive)


def _unit(x: Tensor) -> Tensor:
    """Rows of unit length in x's dtype, computed in float32 at least; a zero row stays zero. By torch's own normalize,
    as in the originals: a memory bank holds the same bits."""
    return F.normalize(x.to(accumulator(x.dtype)), dim=-1).to(x.dtype)


def _damped(x: Tensor, share: float) -> Tensor:
    """The value of x with ``share`` of its gradient."""
    return x.detach() + share * (x - x.detach())


def _one(name: str, value: Tensor) -> Tensor:
    if value.numel() != 1:
        raise ValueError(f"ClipLoss: {name} must have one element, got shape {tuple(value.shape)}")
    return value.reshape(())


def _similarity(function: Callable[[Tensor, Tensor], Tensor] | str) -> str:
    name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
    module = "sentence_transformers" if isinstance(function, str) else getattr(function, "__module__", "") or ""
    if name in SIMILARITIES and module.split(".")[0] == "sentence_transformers":
        return name
    raise NotImplementedError(
        f"MultipleNegativesRankingLoss: similarity_fct must be sentence-transformers' function or the name of one of "
        f"{SIMILARITIES}, got {name}: any other returns the whole similarity matrix, which is never stored here"
    )


def _require_rows(operation: str, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATS:
            came = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"{operation}: {name} must be a tensor of float16, bfloat16, float32 or float64, got {came}"
            )


def _require_temperature(operation: str, temperature: float) -> None:
    if not 0 < number(operation, "temperature", temperature) < math.inf:
        raise ValueError(f"{operation}: temperature must be positive and finite, got {temperature}")

"""sentence-transformers' multiple negatives ranking loss without the similarity matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modalign.common.checks import number, one_of
from modalign.common.deterministic import softplus
from modalign.common.dtypes import accumulator
from modalign.distributed.party import ProcessGroup, copied_as_it_is
from modalign.losses.drop_ins.columns import embed_columns
from modalign.losses.drop_ins.own_pairs import mean_or_zero
from modalign.losses.drop_ins.rows import (
    Gathered,
    alone,
    damp_gradient,
    log_pool,
    party_of_losses,
    require_rows,
    require_switch,
    unit_length,
)
from modalign.losses.functional import info_nce
from modalign.losses.gathering import count_processes
from modalign.losses.pools import dots, union

__all__ = ["MultipleNegativesRankingLoss"]

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
HARDNESS_MODES = (None, "in_batch_negatives", "hard_negatives", "all_negatives")
SIMILARITIES = ("cos_sim", "dot_score")
SWITCH = "gather_across_devices=True"
# directions and partition mode -> the paper to cite; the first entry is for all others
CITATIONS = {
    (frozenset({"query_to_doc"}), "joint"): """
@misc{oord2019representationlearningcontrastivepredictive,
      title={Representation Learning with Contrastive Predictive Coding},
      author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
      year={2019},
      eprint={1807.03748},
      archivePrefix={arXiv},
      primaryClass={cs.LG},
      url={https://arxiv.org/abs/1807.03748},
}
""",
    (frozenset(DIRECTIONS), "joint"): """
@misc{li2023generaltextembeddingsmultistage,
      title={Towards General Text Embeddings with Multi-stage Contrastive Learning},
      author={Zehan Li and Xin Zhang and Yanzhao Zhang and Dingkun Long and Pengjun Xie and Meishan Zhang},
      year={2023},
      eprint={2308.03281},
      archivePrefix={arXiv},
      primaryClass={cs.CL},
      url={https://arxiv.org/abs/2308.03281},
}
""",
    (frozenset({"query_to_doc", "doc_to_query"}), "per_direction"): """
@misc{günther2024jinaembeddings28192token,
      title={Jina Embeddings 2: 8192-Token General-Purpose Text Embeddings for Long Documents},
      author={Michael Günther and Jackmin Ong and Isabelle Mohr and Alaeddine Abdessalem and Tanguy Abel and \
Mohammad Kalim Akram and Susana Guzman and Georgios Mastrapas and Saba Sturua and Bo Wang and Maximilian Werk and \
Nan Wang and Han Xiao},
      year={2024},
      eprint={2310.19923},
      archivePrefix={arXiv},
      primaryClass={cs.CL},
      url={https://arxiv.org/abs/2310.19923},
}
""",
}


class MultipleNegativesRankingLoss(nn.Module):
    """sentence-transformers' ``MultipleNegativesRankingLoss``: each query against the documents of the whole batch.

    Column 0 of the batch holds the queries q_i, column 1 their documents d_i, and further columns hard negatives h_ci,
    which are candidates of every query. With s(a, b) = scale * cos(a, b) the pools of candidates are

        query_to_doc    s(q_i, d_j), s(q_i, h_cj)   all j        query_to_query  s(q_i, q_j)   j != i
        doc_to_query    s(d_i, q_j)   all j                      doc_to_doc      s(d_i, d_j), s(d_i, h_cj)   j != i

    and loss = mean_i log Z_i - s(q_i, d_i), where Z_i sums the exponentials of all chosen pools ("joint"), or log Z_i
    is the mean of the pools' log-sum-exps ("per_direction").

    ``loss(sentence_features, labels=None)`` takes the features of each column; labels are ignored, as in the original.
    It returns a scalar, float64 for float64 embeddings and float32 otherwise. With n rows and k columns peak memory is
    O(n k d), never O(n^2 k), for the rows of all processes with gather_across_devices.

    Args:
        model: called with the features of column 0, then with those of the other columns, merged into one batch if
            they are tokens, returns a mapping with "sentence_embedding" (n, d).
        scale: positive float, 1 / temperature.
        similarity_fct: "cos_sim" or "dot_score", or sentence-transformers' function of that name.
        gather_across_devices: bool. In distributed training the rows of all processes are candidates of the queries
            and documents of this process. In one process it is without effect. Each process returns the loss of its own
            rows, and a row receives the gradient of the sum of the losses of all processes, so that the mean that DDP
            takes is, for even batches, that of one process with the whole batch. A process computes 8 n N d FLOPs for
            each column in a pool, n its rows and N those of all; pairs with query_to_doc, and with both directions of
            pairs "per_direction", take 8 n N d in all and may use a ring.
        directions: name or names of the pools, "query_to_doc" among them.
        partition_mode: "joint", or "per_direction" for the pools that hold the positive: query_to_doc, doc_to_query.
        hardness_mode: the logits of query_to_doc that get hardness_strength * cos more, with the cosine constant for
            the gradient: "in_batch_negatives" (documents and hard negatives of the other rows), "hard_negatives" (those
            of the same row), "all_negatives" (both), or None.
        hardness_strength: float, finite and not negative.
        process_group: for gather_across_devices, the processes: "world" (the default), a process group, or a
            ``modalign.distributed.Sharding`` with its settings. Without it the loss is that of this process, with a
            warning once where there are others; "self" is this process without one. sentence-transformers does not have
            it.

    Raises:
        NotImplementedError: another similarity_fct: a function of two tables returns their whole matrix.
        ValueError: an unknown or inconsistent option; fewer than two columns, or columns of different shapes.
        TypeError: columns of different dtypes or devices.

    Source:
        sentence-transformers 6.2.0; Henderson et al. 2017 (arXiv:1705.00652); directions, Li et al. 2023
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
        *,
        process_group: ProcessGroup = "unset",
    ) -> None:
        super().__init__()
        if not 0 < number("MultipleNegativesRankingLoss", "scale", scale) < math.inf:
            raise ValueError(f"MultipleNegativesRankingLoss: scale must be positive and finite, got {scale}")
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
        one_of("MultipleNegativesRankingLoss", "hardness_mode", hardness_mode, HARDNESS_MODES)
        if not 0 <= hardness_strength < math.inf:
            raise ValueError(
                "MultipleNegativesRankingLoss: hardness_strength must be finite and not negative, "
                f"got {hardness_strength}"
            )
        require_switch("MultipleNegativesRankingLoss", process_group, SWITCH, is_on=gather_across_devices)
        self.process_group = copied_as_it_is(process_group)
        self.model, self.scale, self.similarity = model, float(scale), _similarity(similarity_fct)
        self.similarity_fct, self.gather_across_devices = similarity_fct, gather_across_devices
        self.directions, self.partition_mode = directions, partition_mode
        self.hardness_mode, self.hardness_strength = hardness_mode, float(hardness_strength)

    @property
    def temperature(self) -> float:
        """1 / scale."""
        return 1 / self.scale

    @property
    def citation(self) -> str:
        """The BibTeX entry of the paper that describes these options, for model cards."""
        options = (frozenset(self.directions), self.partition_mode)
        return CITATIONS.get(options, CITATIONS[frozenset({"query_to_doc"}), "joint"])

    def get_config_dict(self) -> dict[str, object]:
        """Return the options, as the original reports them in model cards."""
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
        """Return the loss of the features of each column; labels are ignored."""
        columns = embed_columns(self.model, sentence_features)
        return self.compute_loss_from_embeddings(columns, labels)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of the embeddings (n, d) of each column; labels are ignored."""
        party = None
        if self.gather_across_devices and count_processes() > 1:
            party = party_of_losses("MultipleNegativesRankingLoss", self.process_group)
            party = party.describing(**self.get_config_dict())
            party.checked(lambda: _require_columns(embeddings, fewest=0))
        else:
            alone("MultipleNegativesRankingLoss", self.process_group, SWITCH)
            _require_columns(embeddings, fewest=1)
        if self.similarity == "cos_sim":
            embeddings = [unit_length(column) for column in embeddings]
        if self._is_info_nce(len(embeddings)):
            return mean_or_zero(self._info_nce(embeddings, "self" if party is None else party))
        queries, *columns = embeddings
        positives, all_queries, all_documents = columns[0], queries, torch.cat(columns)
        ids = all_ids = torch.arange(queries.shape[0], device=queries.device)
        gathered: Gathered | None = None
        check_finite: bool | str = "auto"
        if party is not None:
            gathered = Gathered.of(party, torch.stack(list(embeddings), 1), "a pool of several columns")
            if not queries.shape[0]:  # the others want the gradients of this rank, which are zero
                gathered.require_finite("MultipleNegativesRankingLoss", queries, self.scale)
                return gathered.rows[:0].sum(dtype=accumulator(queries.dtype))
            all_queries, *all_columns = gathered.rows.unbind(1)
            all_documents = torch.cat(all_columns)
            all_ids = torch.arange(all_queries.shape[0], device=queries.device)
            ids = all_ids[gathered.own]
            check_finite = "auto" if torch.compiler.is_compiling() else False  # below, by all ranks at once
        document_ids = all_ids.repeat(len(columns))
        pool = partial(log_pool, scale=self.scale, check_finite=check_finite)
        # similarities of each query with the documents of its row, the positive first
        row_products = torch.stack([dots(queries, column) for column in columns], dim=1)

        def query_to_doc() -> Tensor:
            others = self._log_documents_of_other_rows(queries, all_documents, (ids, document_ids), check_finite)
            return union(torch.cat([others[:, None], self._hard_logits(row_products[:, 1:])], 1), 1)

        # pools of negatives alone: nothing cancels where the positive outweighs them
        log_negatives: dict[str, Callable[[], Tensor]] = {
            "query_to_doc": query_to_doc,
            "query_to_query": lambda: pool(queries, all_queries, ids=(ids, all_ids)),
            "doc_to_query": lambda: pool(positives, all_queries, ids=(ids, all_ids)),
            "doc_to_doc": lambda: pool(positives, all_documents, ids=(ids, document_ids)),
        }
        pools = torch.stack([log_negatives[name]() for name in DIRECTIONS if name in self.directions])
        positive = self.scale * row_products[:, 0]
        if gathered is not None:
            logits = torch.cat([pools.flatten(), positive.abs()])
            gathered.require_finite("MultipleNegativesRankingLoss", logits, self.scale)
        if self.partition_mode == "per_direction":
            return softplus(pools - positive).mean()
        # doc_to_query holds the positive a second time
        copies = 1 + ("doc_to_query" in self.directions)
        return math.log(copies) + softplus(union(pools, 0) - positive - math.log(copies)).mean()

    def _is_info_nce(self, columns: int) -> bool:
        """Return whether the loss is that of ``modalign.info_nce`` in one direction or in both."""
        both = set(self.directions) == {"query_to_doc", "doc_to_query"} and self.partition_mode == "per_direction"
        return columns == 2 and self.hardness_mode is None and (both or set(self.directions) == {"query_to_doc"})

    def _info_nce(self, pairs: Sequence[Tensor], process_group: ProcessGroup) -> Tensor:
        """Return the losses (n,) of pairs of queries and documents, of the rows as they are, also under autocast."""
        with torch.autocast(pairs[0].device.type, enabled=False):
            losses: Tensor = info_nce(
                *pairs,
                temperature=1 / self.scale,
                normalize=False,
                direction="both" if len(set(self.directions)) == 2 else "x_to_y",
                reduction="none",
                process_group=process_group,
            )
        return losses

    def _log_documents_of_other_rows(
        self, queries: Tensor, documents: Tensor, ids: tuple[Tensor, Tensor], check_finite: bool | str
    ) -> Tensor:
        """Return the log-sum-exp of the negatives of query_to_doc in other rows, which hardness treats alike."""
        strength = self.hardness_strength if self.hardness_mode else 0.0
        if strength == 0 or self.hardness_mode == "hard_negatives":
            return log_pool(queries, documents, self.scale, ids=ids, check_finite=check_finite)
        # (scale + strength) cos with the gradient of scale cos
        share = self.scale / (self.scale + strength)
        queries, documents = damp_gradient(queries, share), damp_gradient(documents, share)
        return log_pool(queries, documents, self.scale + strength, ids=ids, check_finite=check_finite)

    def _hard_logits(self, products: Tensor) -> Tensor:
        """Return the logits of the hard negatives of each query's row, from their similarities (n, columns)."""
        strength = self.hardness_strength if self.hardness_mode else 0.0
        logits = self.scale * products
        if self.hardness_mode != "in_batch_negatives":
            logits = logits + strength * products.detach()
        return logits


def _require_columns(embeddings: Sequence[Tensor], fewest: int) -> None:
    require_rows("MultipleNegativesRankingLoss", **{f"column {i}": column for i, column in enumerate(embeddings)})
    shapes = [tuple(column.shape) for column in embeddings]
    # not a set of shapes, which would fix the sizes of a compiled graph
    same = all(shape == shapes[0] for shape in shapes)
    if len(shapes) < 2 or not same or len(shapes[0]) != 2 or shapes[0][0] < fewest or shapes[0][1] == 0:
        raise ValueError(
            "MultipleNegativesRankingLoss: the columns must be two or more of one shape (n, d), not empty, "
            f"got shapes {shapes}"
        )
    kinds = [(column.dtype, column.device) for column in embeddings]
    if len(set(kinds)) > 1:
        raise TypeError(f"MultipleNegativesRankingLoss: the columns must share dtype and device, got {kinds}")


def _similarity(function: Callable[[Tensor, Tensor], Tensor] | str) -> str:
    """Return the name of sentence-transformers' function, or refuse any other."""
    name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
    module = "sentence_transformers" if isinstance(function, str) else getattr(function, "__module__", "") or ""
    if name in SIMILARITIES and module.split(".")[0] == "sentence_transformers":
        return name
    raise NotImplementedError(
        f"MultipleNegativesRankingLoss: similarity_fct must be sentence-transformers' function or the name of one of "
        f"{SIMILARITIES}, got {name}: any other returns the whole similarity matrix, which is never stored here"
    )

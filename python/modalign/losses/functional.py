"""The contrastive losses as functions. ``options`` holds their options; ``evaluation`` and ``ops`` compute them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modalign.common.checks import one_of, require_pairs
from modalign.common.deterministic import softplus
from modalign.distributed.agreement import Description
from modalign.distributed.info_nce import ShardedOptions, sharded_info_nce
from modalign.distributed.party import ProcessGroup, party_of
from modalign.distributed.sigmoid_loss import sharded_sigmoid_loss
from modalign.losses import pools
from modalign.losses.eager_gradients import evaluate_with_gradients
from modalign.losses.evaluation import evaluate
from modalign.losses.inputs import (
    biases,
    blank_ignored,
    checks_values,
    embeddings,
    groups_and_ignored,
    problem_scales,
    require_positive,
    without_autocast,
)
from modalign.losses.options import InfoNCEOptions, require_choices
from modalign.losses.reduction import reduce_losses
from modalign.losses.shared_batches import describe, flag, require_finite_rows, share_batch, share_pairs
from modalign.losses.statistics import Stats
from modalign.ops.info_nce import INFO_NCE, info_nce_forward
from modalign.ops.loss_tables import ForwardOptions, LossTables
from modalign.ops.sigmoid_loss import SIGMOID_LOSS, sigmoid_loss_forward

__all__ = ["Stats", "info_nce", "nt_xent", "sigmoid_loss"]


def info_nce(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    direction: str = "both",
    negatives: Tensor | None = None,
    queue: Tensor | None = None,
    groups: Tensor | None = None,
    positives: str = "pair",
    label_smoothing: float = 0.0,
    teacher: tuple[Tensor, Tensor, float] | None = None,
    margin: float | None = None,
    weights: Tensor | None = None,
    ignore: Tensor | None = None,
    reduction: str = "mean",
    stats: bool | str = False,
    workspace: int | None = None,
    check_finite: bool | str = "auto",
    backend: str = "auto",
    process_group: ProcessGroup = "unset",
) -> Any:
    """Compute InfoNCE (the CLIP loss) of paired rows without storing the similarity matrix.

    With ``S_ij = <x_i, y_j> / temperature``, the anchor x_i has the candidates y_1, ..., y_n and the loss
    log sum_j exp S_ij - S_ii; the anchor y_i has the candidates x_1, ..., x_n and the loss log sum_j exp S_ji - S_ii.
    The loss of a pair is the mean of both:

        loss_i = (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii

    Args:
        x: (..., n, d) embeddings of the first modality, float16, bfloat16, float32 or float64. Leading dimensions are
            independent problems: negatives never cross them.
        y: (..., n, d) embeddings of the second modality, row i paired with row i of x; shape, dtype and device of x.
            Under autocast x and y may differ in dtype.
        temperature: positive float; or a tensor with one element, a tensor that broadcasts to the leading dimensions
            (one value for each problem), or a tensor (..., n) (one value for each pair of anchors x_i and y_i). A
            tensor receives a gradient.
        normalize: bool. Divide every row by its Euclidean norm first, so that S is the cosine over the temperature. A
            zero row stays zero. Half-precision rows are normalised in float32 and rounded back.
        direction: "both"; "x_to_y" for anchors x with candidates y alone; "y_to_x" for anchors y with candidates x.
        negatives: (..., n, h, d), h hard negatives for each anchor x_i: candidates of x_i alone.
        queue: (m, d) or (..., m, d), more candidates for every anchor x_i.
        groups: (..., n) or (n,) integers. Rows with equal values belong together, as captions of one image or
            duplicates do.
        positives: the treatment of the other rows of a pair's group. "pair": they are no candidates. "out" and "in":
            they are positives as well, as in SupCon, and the loss is the mean over the positives p of
            log sum_j exp S_ij - S_ip ("out"), or log of the sum over all candidates minus log of the mean over the
            positives ("in").
        label_smoothing: float e in [0, 1). The target becomes (1 - e) times itself plus e times the uniform
            distribution over the candidates, as in ``torch.nn.functional.cross_entropy``.
        teacher: (tx, ty, teacher_temperature), soft targets in place of the pairs: the softmax over the same candidates
            of ``<tx_i, ty_j> / teacher_temperature``, for embeddings tx and ty (..., n, d') that are normalised if x
            and y are. The targets are recomputed tile by tile and receive no gradient.
        margin: float. A negative counts for an anchor only if its similarity, before the temperature, is at most the
            similarity of the pair plus the margin, so that presumed false negatives are left out. This holds for
            negatives in the batch, in ``negatives`` and in ``queue``. Negatives exactly at the limit, up to rounding,
            count. No gradient flows through the selection.
        weights: (..., n) or (n,), finite and not negative. The mean becomes sum_i w_i loss_i / sum_i w_i.
        ignore: (..., n) or (n,) bool. Marked rows are neither anchors nor candidates, whatever they hold, and their
            loss is 0.
        reduction: "mean" or "sum" over the n pairs of each problem, shape (...,); "none" for shape (..., n).
        stats: True to return ``Stats`` as well. "gradient" adds the norms of the gradients at x and y: the loss is
            differentiated at once, and the backward pass only scales the gradients that were kept, so there is no
            second derivative, and neither ``torch.func`` nor ``torch.compile(fullgraph=True)`` can trace it.
        workspace: number of bytes of logits to keep from the forward to the backward pass; each row that is kept need
            not be recomputed. None keeps all logits if they fit into 16 MiB ("cuda" keeps none). On the CPU it changes
            no bit of the result; on a GPU it changes the order of the sums of half-precision inputs.
        check_finite: True to raise a ValueError for NaN or inf in embeddings or logits; False to pass them on, so that
            loss and gradients are NaN. "auto" raises for bfloat16, float32 and float64 on the CPU, and passes them on
            for float16, so that ``torch.amp.GradScaler`` skips the step, and on other devices, so that the host never
            waits. True makes it wait.
        backend: "auto", or the name of a backend; ``modalign.explain("info_nce", x, y)`` lists them.
        process_group: the ranks whose rows are one batch: "world", a ``torch.distributed`` group, a ``DeviceMesh`` of
            one dimension, or a ``modalign.distributed.Sharding`` with more settings. Every rank passes its own rows, as
            many as it has, and calls the function; see *Many processes* below. "self" is this process alone; so is
            "unset", which warns once where torch.distributed has several processes.

    Returns:
        The loss, float64 for float64 inputs and float32 otherwise; with ``stats`` a pair (loss, ``Stats``). Its
        gradients at x, y, negatives, queue and a tensor temperature are exactly those of the returned value: no factor
        is hidden in them. An input that needs no gradient costs none. Second derivatives are computed by blocks of
        rows. grad, vjp, jacrev and vmap of ``torch.func`` work; forward-mode derivatives (jvp, jacfwd, hessian) do not
        exist: ``jacrev(jacrev(loss))`` is the Hessian.

    Many processes:
        With ``process_group`` the batch has the rows of rank 0, then those of rank 1, and so on, N in all. Every rank
        computes 8 n_r N d FLOPs and returns the loss L of the whole batch, the same bits on each (with reduction
        "none", the losses of its own rows). Of P ranks, rank r receives the gradient

            P dL/dx_r,   P dL/dy_r,   dL/dtemperature

        so that the mean over ranks that DistributedDataParallel and FSDP take is the gradient of one process with the
        whole batch, and a temperature that neither holds stays the same on all ranks. (With "none" x and y receive the
        gradient of the sum of what the ranks make of their losses, and a temperature that of the mean.) A queue is the
        same on every rank, and negatives are those of its own rows. All ranks pass the same options, as they find out
        before any rows travel; values of a temperature and a queue are compared on the CPU only. A temperature of shape
        (..., n_r) is one for each anchor on a rank with one row, too: give one value no dimensions. Second derivatives
        and ``torch.func`` are refused.

    Precision:
        Sums are kept in float32, or in float64 for float64 inputs. Under autocast S is computed from rows in autocast's
        dtype. With other targets than the pair (positives="out", label_smoothing, teacher), half-precision rows are
        converted to float32 after they are normalised: near the optimum the softmax and its target cancel, and
        half-precision weights would leave noise. On the CPU (backend "cpp") the same inputs give the same bits of loss
        and gradients for every number of threads, on a GPU in every run.

    Memory:
        Beyond inputs and gradients O(n d) for the normalised copies, the workspace, and O(threads d) for tiles; never
        O(n^2). With ``process_group`` a rank holds (3 N + 5 n_r) d numbers if rows are gathered, and (8 n_r + 2 p) d
        around a ring, whose products have p = 4096 rows on a CPU and 16,384 on a GPU, or n_r if that is less; and
        about 10 for each of the N rows.

    Raises:
        TypeError: x or y is not a floating-point tensor, or dtypes or devices differ.
        ValueError: shapes that do not pair up, no rows, a temperature that is not positive, options that exclude each
            other, every row ignored, weights that are negative or all zero, or NaN or inf in the inputs
            (``check_finite``). Temperature, weights and ignored rows are checked on the CPU only.
        NotImplementedError: the named backend refuses the call; the message gives its reason.
        RuntimeError: torch.distributed is not initialised, or another rank refused its input or did not arrive.

    Source:
        van den Oord et al. 2018 (arXiv:1807.03748); the symmetric form, Radford et al. 2021 (arXiv:2103.00020);
        positives="out" and "in", Khosla et al. 2020 (arXiv:2004.11362).

    Examples:
        >>> import torch, modalign
        >>> x, y = torch.eye(4), torch.eye(4)
        >>> round(modalign.info_nce(x, y, temperature=0.5).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
        >>> groups = torch.tensor([0, 0, 1, 2])  # the first two rows show the same thing
        >>> modalign.info_nce(x, y, temperature=0.5, groups=groups, reduction="none")
        tensor([0.2395, 0.2395, 0.3408, 0.3408])
        >>> loss, stats = modalign.info_nce(x, y, temperature=0.5, stats=True)
        >>> stats.x_accuracy.item(), round(stats.mutual_information.item(), 4)  # log(4) - loss
        (1.0, 1.0455)
    """
    options = InfoNCEOptions(
        temperature=temperature,
        normalize=normalize,
        direction=direction,
        negatives=negatives,
        queue=queue,
        groups=groups,
        positives=positives,
        label_smoothing=label_smoothing,
        teacher=teacher,
        margin=margin,
        weights=weights,
        ignore=ignore,
        reduction=reduction,
        stats=stats,
        workspace=workspace,
        check_finite=check_finite,
        backend=backend,
    )
    party = party_of("info_nce", process_group)
    if party is None:
        require_pairs("info_nce", x, y)
        options.require_valid(x)
        batch = None
    else:
        x, y, options, batch = share_pairs(party, x, y, options)
    compute = evaluate_with_gradients if stats == "gradient" and torch.is_grad_enabled() else evaluate
    loss, by_products = compute(x, y, options, None if batch is None else batch.call)
    if batch is not None and batch.is_empty:
        loss = batch.trimmed(loss) if reduction == "none" else loss
        by_products = by_products if by_products is None else by_products.trimmed()
    return (loss, by_products) if stats else loss


def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    reduction: str = "mean",
    check_finite: bool | str = "auto",
    backend: str = "auto",
    process_group: ProcessGroup = "unset",
) -> Tensor:
    """Compute SimCLR's loss (NT-Xent) of two views without storing the 2n x 2n similarity matrix.

    Each of the 2n rows z = [x; y] is an anchor, with all other rows as candidates. With
    ``S_ij = <z_i, z_j> / temperature``, the anchor z_i whose other view is z_i' has

        loss_i = log sum_{j != i} exp S_ij - S_ii'

    Args:
        x: (..., n, d) first views, float16, bfloat16, float32 or float64. Leading dimensions are independent problems.
        y: (..., n, d) second views, row i of the same item as row i of x; shape, dtype and device of x.
        temperature: positive float, or a tensor that broadcasts to the leading dimensions, which receives a gradient.
        normalize: bool. Divide every row by its Euclidean norm first; a zero row stays zero.
        reduction: "mean" or "sum" over the 2n anchors of each problem, shape (...,); "none" for shape (..., 2n), with
            the anchors of x first.
        check_finite: "auto", True or False, as in ``modalign.info_nce``.
        backend: "auto", or the name of a backend; ``modalign.explain("info_nce", x)`` lists them.
        process_group: the ranks whose rows are one batch, as in ``modalign.info_nce``, gradients too. A rank computes
            16 N^2 d / P FLOPs: each pair of its rows with those of others is computed by one of both.

    Returns:
        The loss, float64 for float64 inputs and float32 otherwise, with exact gradients. S is symmetric, and only half
        of its tiles are computed.

    Memory:
        Beyond inputs and gradients O(n d), never O(n^2); on several ranks at most that of ``info_nce`` with 2 n_r rows.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as ``modalign.info_nce``.

    Source:
        Chen et al. 2020 (arXiv:2002.05709), equation 1.

    Examples:
        >>> import torch, modalign
        >>> round(modalign.nt_xent(torch.eye(4), torch.eye(4)).item(), 4)  # log(1 + 6 exp(-2))
        0.5944
    """

    def require_valid(fewest: int = 1) -> None:
        require_pairs("nt_xent", x, y, fewest=fewest)
        require_choices("nt_xent", reduction, check_finite)
        one_of("nt_xent", "backend", backend, INFO_NCE.backends)
        scale = problem_scales("nt_xent", temperature, x.shape[:-2], x)
        if fewest == 0:
            require_positive("nt_xent", scale)
            require_finite_rows("nt_xent", {"x": x, "y": y}, check_finite, x)

    party, shared = party_of("nt_xent", process_group), None
    if party is None:
        require_valid()
    else:
        party.checked(lambda: require_valid(0))
        described: Description = {"normalize": flag(normalize), "check_finite": flag(check_finite)}
        described |= {"reduction": reduction, "backend": backend}
        shared = share_batch(party, (x, y), described, equal={"temperature": temperature})
        (x, y), temperature = shared.rows(x, y), shared.shared_value(temperature)
    batch = x.shape[:-2]
    scale = problem_scales("nt_xent", temperature, batch, x)
    left, right = (embeddings(rows, normalize, math.prod(batch)) for rows in (x, y))
    with without_autocast(x):
        both = torch.cat([left, right], 1)
        pairs = torch.arange(x.shape[-2], device=x.device).repeat(2).expand(both.shape[:2])
        # the pair stays out of the pool, so that nothing cancels where it outweighs all negatives
        tables = LossTables(both, None, torch.cat([scale, scale], 1), row_id=pairs, col_id=pairs, mask="same")
        check, kept, call = checks_values(check_finite, x), None, None
        if shared is None:
            negatives = info_nce_forward(tables, ForwardOptions(columns=False, check_finite=check), backend).row_lse
        else:
            tables, kept = shared.with_global_pairs(tables)
            call = shared.call.with_sizes(tuple(2 * size for size in shared.call.ranks.sizes))
            options = ShardedOptions(False, False, check, ids_elsewhere=kept is not None, backend=backend)
            negatives = sharded_info_nce(tables, options, call).row_lse
        positive = scale * pools.dots(left, right)
        losses = softplus(negatives - torch.cat([positive, positive], 1))
        loss = reduce_losses("nt_xent", losses, batch, reduction=reduction, kept=kept, call=call)
        return shared.trimmed(loss) if shared is not None and reduction == "none" else loss


def sigmoid_loss(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    normalize: bool = True,
    groups: Tensor | None = None,
    ignore: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool | str = "auto",
    backend: str = "auto",
    process_group: ProcessGroup = "unset",
) -> Tensor:
    """Compute SigLIP's loss without storing the similarity matrix: each entry is a binary classification.

    With ``S_ij = <x_i, y_j> / temperature``, and z_ij = 1 for i = j and -1 otherwise,

        loss_i = sum_j log(1 + exp(-z_ij (S_ij + bias)))

    Args:
        x: (..., n, d) embeddings of the first modality, float16, bfloat16, float32 or float64. Leading dimensions are
            independent problems.
        y: (..., n, d) embeddings of the second modality, row i paired with row i of x; shape, dtype and device of x.
        temperature: positive float, or a tensor that broadcasts to the leading dimensions, which receives a gradient.
        bias: float, or a tensor that broadcasts to the leading dimensions, which receives a gradient. SigLIP trains
            both temperature and bias.
        normalize: bool. Divide every row by its Euclidean norm first; a zero row stays zero.
        groups: (..., n) or (n,) integers. z_ij = 1 wherever the groups of i and j are equal.
        ignore: (..., n) or (n,) bool. Marked rows take no part, whatever they hold, and their loss is 0.
        reduction: "mean" (the sum over all entries divided by n, as in SigLIP) or "sum", shape (...,); "none" for shape
            (..., n).
        check_finite: "auto", True or False, as in ``modalign.info_nce``.
        backend: "auto", or the name of a backend; ``modalign.explain("sigmoid_loss", x, y)`` lists them.
        process_group: the ranks whose rows are one batch, as in ``modalign.info_nce``, gradients too.

    Returns:
        The loss, float64 for float64 inputs and float32 otherwise, with exact gradients at x, y, temperature and bias.

    Memory:
        Beyond inputs and gradients O(n d), never O(n^2); on several ranks at most that of ``modalign.info_nce``.

    Raises:
        TypeError, ValueError, NotImplementedError, RuntimeError: as ``modalign.info_nce``.

    Source:
        Zhai et al. 2023 (arXiv:2303.15343), equation 1; temperature and bias as in its algorithm 1.

    Examples:
        >>> import torch, modalign
        >>> loss = modalign.sigmoid_loss(torch.eye(4), torch.eye(4), temperature=0.5, bias=-1.0)
        >>> round(loss.item(), 4)  # log(1 + exp(-1)) + 3 log(1 + exp(-1))
        1.253
    """

    def require_valid(fewest: int = 1) -> None:
        require_pairs("sigmoid_loss", x, y, fewest=fewest)
        require_choices("sigmoid_loss", reduction, check_finite)
        one_of("sigmoid_loss", "backend", backend, SIGMOID_LOSS.backends)
        scale = problem_scales("sigmoid_loss", temperature, x.shape[:-2], x)
        biases(bias, x.shape[:-2], scale)
        if fewest == 0:
            require_positive("sigmoid_loss", scale)
            _, kept = groups_and_ignored("sigmoid_loss", groups, ignore, x, some_kept=False)
            tables = {"x": blank_ignored(x, kept), "y": blank_ignored(y, kept)}
            require_finite_rows("sigmoid_loss", tables, check_finite, x)

    party, shared, call = party_of("sigmoid_loss", process_group), None, None
    if party is None:
        require_valid()
    else:
        party.checked(lambda: require_valid(0))
        described: Description = {"normalize": flag(normalize), "check_finite": flag(check_finite)}
        described |= {"groups": describe(groups, -1), "ignore": describe(ignore, -1)}
        described |= {"reduction": reduction, "backend": backend}
        shared = share_batch(party, (x, y), described, equal={"temperature": temperature, "bias": bias})
        (x, y), call = shared.rows(x, y), shared.call
        groups, ignore = shared.fill(groups, -1), shared.ignored(ignore, x)
        temperature, bias = shared.shared_value(temperature), shared.shared_value(bias)
    batch = x.shape[:-2]
    scale = problem_scales("sigmoid_loss", temperature, batch, x)
    shift = biases(bias, batch, scale)
    ids, kept = groups_and_ignored("sigmoid_loss", groups, ignore, x, call=call)
    if groups is None and kept is not None:  # without groups a pair is the only member of its group
        first = 0 if call is None else call.ranks.own.start
        ids = torch.where(kept, first + torch.arange(x.shape[-2], device=x.device), -1)
    left, right = (embeddings(blank_ignored(rows, kept), normalize, math.prod(batch)) for rows in (x, y))
    with without_autocast(x):
        tables, check = LossTables(left, right, scale, row_id=ids, col_id=ids), checks_values(check_finite, x)
        if call is None:
            losses = sigmoid_loss_forward(tables, shift, backend, check_finite=check)
        else:
            losses = sharded_sigmoid_loss(tables, shift, call, backend, check_finite=check)
        loss = reduce_losses("sigmoid_loss", losses, batch, reduction=reduction, kept=kept, call=call)
        return shared.trimmed(loss) if shared is not None and reduction == "none" else loss

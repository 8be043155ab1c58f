"""The contrastive losses as functions: contracts and docstrings. ``anchors`` and ``ops`` compute them."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modalign.common.checks import autocast_dtype, number, one_of, require_like, require_pairs
from modalign.common.deterministic import softplus
from modalign.common.dtypes import FLOATS, accumulator
from modalign.losses import pools
from modalign.losses.inputs import embeddings, groups_and_ignored, logit_scales, per_row, readable, without_autocast
from modalign.losses.reduction import REDUCTIONS, reduced
from modalign.ops.info_nce import INFO_NCE, info_nce_forward, raise_overflow, require_finite_tables
from modalign.ops.sigmoid_loss import SIGMOID_LOSS, sigmoid_loss_forward

__all__ = ["Stats", "info_nce", "nt_xent", "sigmoid_loss"]

DIRECTIONS = ("both", "x_to_y", "y_to_x")
POSITIVES = ("pair", "out", "in")
BACKENDS = ("auto", *(known.name for known in INFO_NCE.implementations))
KEPT_BYTES = 1 << 24  # of logits, kept for the backward pass when all fit: small batches need three products, not four


class Stats(NamedTuple):
    """What ``info_nce(..., stats=True)`` learns in the passes it makes anyway. Shapes (...,) unless said otherwise.

    x_lse, y_lse: (..., n) log-sum-exp of the logits of each anchor's candidates, differentiable; None for a direction
        that is not computed. The other fields are detached.
    mutual_information: the InfoNCE bound, mean log(number of candidates, before the margin) - mean loss, in nats.
    x_accuracy, y_accuracy: the share of anchors for which no candidate counted is more similar than their own pair.
    positive, negative: mean similarity <x_i, y_j> of the pairs and of the negatives (before the margin, if any).
    entropy: mean entropy of the anchors' softmax over their candidates, in nats.
    effective_negatives: mean exp(entropy) of the softmax over the negatives alone: how many of them carry the weight
        (with positives="out": of that over all candidates); 0 for an anchor without any.
    x_gradient, y_gradient: Euclidean norms of the loss's gradient at x and at y, with stats="gradient"; else None.
    """

    x_lse: Tensor | None
    y_lse: Tensor | None
    mutual_information: Tensor
    x_accuracy: Tensor | None
    y_accuracy: Tensor | None
    positive: Tensor
    negative: Tensor
    entropy: Tensor
    effective_negatives: Tensor
    x_gradient: Tensor | None = None
    y_gradient: Tensor | None = None


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
    backend: str = "auto",
) -> Any:
    """InfoNCE (the CLIP loss) of paired rows, without storing the similarity matrix.

    S_ij = <x_i, y_j> / temperature. The anchor x_i has the loss log sum_j exp S_ij - S_ii, the anchor y_i the loss
    log sum_j exp S_ji - S_ii, and a pair the mean of both:

        loss_i = (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii

    Args:
        x, y: (..., n, d) embeddings of two modalities, row i of x paired with row i of y. float16, bfloat16, float32 or
            float64, the same for both. Leading dimensions are independent problems: negatives never cross them.
        temperature: positive; a float, a tensor with one element or one that broadcasts to the leading dimensions (one
            value per problem), or a tensor (..., n), one value per anchor: x_i and y_i.
        normalize: divide every row by its Euclidean norm first, so that S is the cosine over the temperature. A zero
            row stays zero. Half-precision rows are normalised in float32 and rounded back. With other targets than the
            pair (positives="out", label_smoothing, teacher) they are then computed with in float32: near the optimum
            the softmax and its target cancel, and weights in half precision would leave noise.
        direction: "both", "x_to_y" (anchors x, candidates y) or "y_to_x".
        negatives: (..., n, h, d), h more candidates for the anchor x_i alone: its own hard negatives.
        queue: (m, d) or (..., m, d), more candidates for every anchor x_i.
        groups: (..., n) or (n,) integers: rows with equal values belong together (captions of one image, duplicates).
        positives: "pair": mates, the other rows of a pair's group, are no candidates. "out", "in": mates are positives,
            and the loss is SupCon's: the mean over the positives p of log sum_j exp S_ij - S_ip ("out"), or log of the
            sum over all candidates less log of the mean over the positives ("in").
        label_smoothing: e in [0, 1): the target is 1 - e times itself plus e times the uniform distribution over the
            candidates, as in ``torch.nn.functional.cross_entropy``.
        teacher: (tx, ty, teacher_temperature): soft targets instead of the pairs, softmax over the same candidates of
            <tx_i, ty_j> / teacher_temperature for (..., n, d') embeddings, normalised if x and y are. They are
            recomputed tile by tile and get no gradient.
        margin: a negative (of the batch, the queue or its own) counts for an anchor only if its similarity (before the
            temperature) is at most the pair's plus the margin: presumed false negatives are left out. A tie, to the
            rounding of inner products, counts. Which ones is a constant for the gradient.
        weights: (..., n) or (n,), finite and not negative: the mean is sum_i w_i loss_i / sum_i w_i.
        ignore: (..., n) or (n,) bool: rows that are neither anchors nor candidates, whatever they hold. Their loss is
            0.
        reduction: "mean" or "sum" over the n pairs of each problem, shape (...,); "none" for shape (..., n).
        stats: True to get ``Stats`` too. "gradient" adds the gradient's norms: it differentiates at once and keeps the
            gradients, so the backward pass only scales them, and nothing is left to differentiate twice (nor for
            ``torch.func`` and ``torch.compile(fullgraph=True)``).
        workspace: bytes of logits to keep from the forward to the backward pass: each row kept saves recomputing it.
            None keeps them when all fit into 16 MiB ("cuda" keeps none). On the CPU it changes no bit of the result, on
            a GPU the order of sums of half-precision inputs.
        backend: "auto" or the name of one; see ``modalign.explain("info_nce", x, y)``.

    Returns:
        The loss, float64 for float64 inputs, float32 otherwise; with stats a pair (loss, Stats). Its gradient with
        respect to x, y, negatives, queue and a tensor temperature is exactly the gradient of the value returned: no
        factor is hidden in it. A side that needs no gradient costs none. Second derivatives are computed by blocks.
        ``torch.func``'s grad, vjp, jacrev and vmap compose with it; forward-mode derivatives (jvp) do not exist.

    Under autocast x and y may differ in dtype; S is computed from rows in autocast's dtype, sums in float32.

    Peak memory beyond inputs and gradients: O(n d) for the normalised copies, the workspace, and O(threads d) for
    tiles; never O(n^2). On the CPU the same inputs give the same bits of loss and gradients for every number of
    threads (C++ backend), on a GPU for every run.

    Raises:
        TypeError: x or y is not a floating-point tensor, or dtypes or devices differ.
        ValueError: shapes that do not pair up, no rows, a temperature that is not positive, options that exclude each
            other, every row ignored, weights that are negative or all zero, NaN or inf (values are checked on the CPU;
            on other devices NaN propagates, so that the host never waits).
        NotImplementedError: the named backend refuses the call, with its reason.

    Source: van den Oord et al. 2018 (arXiv:1807.03748); symmetric form, Radford et al. 2021 (arXiv:2103.00020);
    positives="out" and "in", Khosla et al. 2020 (arXiv:2004.11362).

    Examples:
        >>> import torch, modalign
        >>> x, y = torch.eye(4), torch.eye(4)
        >>> round(modalign.info_nce(x, y, temperature=0.5).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
        >>> groups = torch.tensor([0, 0, 1, 2])  # the first two show the same thing
        >>> modalign.info_nce(x, y, temperature=0.5, groups=groups, reduction="none")
        tensor([0.2395, 0.2395, 0.3408, 0.3408])
        >>> loss, stats = modalign.info_nce(x, y, temperature=0.5, stats=True)
        >>> stats.x_accuracy.item(), round(stats.mutual_information.item(), 4)  # log(4) - loss
        (1.0, 1.0455)
    """
    require_pairs("info_nce", x, y)
    _require_options(
        x, direction, negatives, queue, groups, positives, label_smoothing, teacher, margin, reduction, stats,
        workspace, backend,
    )  # fmt: skip
    given: dict[str, Any] = {"temperature": temperature, "negatives": negatives, "queue": queue, "weights": weights}
    settings: dict[str, Any] = {
        "normalize": normalize, "direction": direction, "groups": groups, "positives": positives,
        "label_smoothing": label_smoothing, "teacher": teacher, "margin": margin, "ignore": ignore,
        "reduction": reduction, "workspace": workspace, "backend": backend,
    }  # fmt: skip
    if stats == "gradient" and torch.is_grad_enabled():
        return _already_differentiated(x, y, given, settings)
    loss, by_products = _info_nce(x, y, **given, **settings, stats=bool(stats))
    return (loss, by_products) if stats else loss


def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """SimCLR's loss of two views: each of the 2n rows against all others, without the 2n x 2n similarity matrix.

    For z = [x; y] and S_ij = <z_i, z_j> / temperature, the anchor z_i with its other view z_i' has

        loss_i = log sum_{j != i} exp S_ij - S_ii'

    Args:
        x, y: (..., n, d), as in ``modalign.info_nce``. temperature: a float, or a tensor with one value per problem.
        normalize, backend: as in ``modalign.info_nce``.
        reduction: "mean" or "sum" over the 2n anchors, shape (...,); "none" for (..., 2n), x's anchors first.

    Returns:
        The loss, float64 for float64 inputs, float32 otherwise. S is symmetric: half of its tiles are computed.

    Peak memory beyond inputs and gradients: O(n d), never O(n^2). Raises as ``modalign.info_nce`` does.

    Source: Chen et al. 2020 (arXiv:2002.05709), equation 1.

    Examples:
        >>> import torch, modalign
        >>> round(modalign.nt_xent(torch.eye(4), torch.eye(4)).item(), 4)  # log(1 + 6 exp(-2))
        0.5944
    """
    require_pairs("nt_xent", x, y)
    one_of("nt_xent", "reduction", reduction, REDUCTIONS)
    one_of("nt_xent", "backend", backend, BACKENDS)
    batch = x.shape[:-2]
    scale, per_anchor = logit_scales("nt_xent", temperature, batch, x)
    if per_anchor:
        raise ValueError("nt_xent: temperature must be one value per problem, got one per anchor")
    left, right = (embeddings(rows, normalize, math.prod(batch)) for rows in (x, y))
    with without_autocast(x):
        both = torch.cat([left, right], 1)
        pairs = torch.arange(x.shape[-2], device=x.device).repeat(2).expand(both.shape[:2])
        # the pair stays out of the pool, so that nothing cancels where it outweighs all others
        negatives = info_nce_forward(
            both, None, torch.cat([scale, scale], 1), pairs, pairs, None, None, "same", False, False, 0, backend
        )[0]
        positive = scale * pools.dots(left, right)
        each = softplus(negatives - torch.cat([positive, positive], 1))
        return reduced("nt_xent", each, batch, reduction, None, None)


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
    backend: str = "auto",
) -> Tensor:
    """SigLIP's loss: every pair of rows a yes or no, without storing the similarity matrix.

    With S_ij = <x_i, y_j> / temperature and z_ij = 1 for i = j, -1 otherwise,

        loss_i = sum_j log(1 + exp(-z_ij (S_ij + bias)))

    Args:
        x, y, normalize, backend: as in ``modalign.info_nce``.
        temperature, bias: floats, or tensors that broadcast to the leading dimensions (both are trained in SigLIP).
        groups: (..., n) or (n,) integers: z_ij = 1 wherever the groups of i and j are equal.
        ignore: (..., n) or (n,) bool: rows that take no part; their loss is 0.
        reduction: "mean" (the sum over all entries divided by n, as SigLIP has it) or "sum", shape (...,); "none" for
            shape (..., n).

    Returns:
        The loss, float64 for float64 inputs, float32 otherwise, with exact gradients in x, y, temperature and bias.

    Peak memory beyond inputs and gradients: O(n d), never O(n^2). Raises as ``modalign.info_nce`` does.

    Source: Zhai et al. 2023 (arXiv:2303.15343), equation 1; temperature and bias as in its algorithm 1.

    Examples:
        >>> import torch, modalign
        >>> loss = modalign.sigmoid_loss(torch.eye(4), torch.eye(4), temperature=0.5, bias=-1.0)
        >>> round(loss.item(), 4)  # log(1 + exp(-1)) + 3 log(1 + exp(-1))
        1.253
    """
    require_pairs("sigmoid_loss", x, y)
    one_of("sigmoid_loss", "reduction", reduction, REDUCTIONS)
    one_of("sigmoid_loss", "backend", backend, ("auto", *(known.name for known in SIGMOID_LOSS.implementations)))
    batch = x.shape[:-2]
    problems = math.prod(batch)
    scale, per_anchor = logit_scales("sigmoid_loss", temperature, batch, x)
    if per_anchor:
        raise ValueError("sigmoid_loss: temperature must be one value per problem, got one per anchor")
    shift = _bias(bias, batch, x, scale.dtype)
    ids, kept = groups_and_ignored("sigmoid_loss", groups, ignore, x)
    if groups is None and kept is not None:  # pairs are told by their numbers
        ids = torch.where(kept, torch.arange(x.shape[-2], device=x.device), -1)
    left, right = (embeddings(rows, normalize, problems) for rows in (_kept_rows(x, kept), _kept_rows(y, kept)))
    with without_autocast(x):
        each = sigmoid_loss_forward(left, right, scale, shift, ids, ids, backend)
        return reduced("sigmoid_loss", each, batch, reduction, None, kept)


def _info_nce(
    x: Tensor, y: Tensor, *, temperature: float | Tensor, negatives: Tensor | None, queue: Tensor | None,
    normalize: bool, direction: str, groups: Tensor | None, positives: str, label_smoothing: float,
    teacher: tuple[Tensor, Tensor, float] | None, margin: float | None, weights: Tensor | None,
    ignore: Tensor | None, reduction: str, workspace: int | None, backend: str, stats: bool,
) -> tuple[Tensor, Stats | None]:  # fmt: skip
    batch = x.shape[:-2]
    problems = math.prod(batch)
    scale, per_anchor = logit_scales("info_nce", temperature, batch, x)
    ids, kept = groups_and_ignored("info_nce", groups, ignore, x)
    if weights is not None:
        weights = per_row("info_nce", "weights", weights, x, FLOATS)
    left, right = (embeddings(rows, normalize, problems) for rows in (_kept_rows(x, kept), _kept_rows(y, kept)))
    if positives == "out" or label_smoothing or teacher is not None:
        # near the optimum the softmax and its target cancel: weights in half precision would leave noise
        left, right = (rows.to(accumulator(rows.dtype)) for rows in (left, right))
    differentiable = (t for t in (left, right, scale, negatives, queue) if t is not None)
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in differentiable)
    options = pools.Options(
        ids, groups is not None, positives, float(label_smoothing), margin, stats,
        _workspace(workspace, scale, y.shape[-2], backend) if wants_gradient else 0, backend,
    )  # fmt: skip
    taught = None if teacher is None else _teacher(teacher, normalize, x, left.dtype, scale, kept)
    with without_autocast(x):
        if direction == "both" and not per_anchor:
            both = pools.sides(left, right, scale, taught, options, both=True)
        else:
            both = ()
            if direction != "y_to_x":
                both += pools.sides(left, right, scale, taught, options, both=False)
            if direction != "x_to_y":
                turned = None if taught is None else pools.Teacher(taught.candidates, taught.anchors, taught.scale)
                both += pools.sides(right, left, scale, turned, options, both=False)
        both = (_with_more_candidates(both[0], negatives, queue, normalize, batch, options), *both[1:])
        losses, lses = zip(*(pools.anchor_losses(side, options) for side in both), strict=True)
        each = losses[0] if len(losses) == 1 else (losses[0] + losses[1]) / 2
        loss = reduced("info_nce", each, batch, reduction, weights, kept)
        by_products = _stats(both, each, lses, options, kept, batch, direction) if stats else None
    return loss, by_products


def _kept_rows(rows: Tensor, kept: Tensor | None) -> Tensor:
    """``rows`` (..., n, d) with zeros for those that are left out, whatever they hold."""
    return rows if kept is None else rows.masked_fill(~kept.reshape(*rows.shape[:-1], 1), 0.0)


def _with_more_candidates(
    side: pools.Side, negatives: Tensor | None, queue: Tensor | None, normalize: bool, batch: torch.Size,
    options: pools.Options,
) -> pools.Side:  # fmt: skip
    problems, extended = math.prod(batch), side.pools
    if negatives is not None:
        n, h, d = negatives.shape[-3:]
        rows = embeddings(negatives.reshape(*batch, n * h, d), normalize, problems).reshape(problems, n, h, d)
        if options.ids is not None:
            rows = rows.masked_fill((options.ids < 0)[:, :, None, None], 0.0)
        if readable(rows):
            require_finite_tables("info_nce", {"negatives": rows})
        pool = pools.own_negatives(side, rows)
        if readable(pool.lse) and not bool((pool.lse < torch.inf).all()):
            raise_overflow("info_nce", side.anchors, rows, side.scale)
        extended += (pool,)
    if queue is not None:
        rows = embeddings(queue, normalize, math.prod(queue.shape[:-2]))
        if readable(rows):
            require_finite_tables("info_nce", {"queue": rows})
        rows = rows.to(side.anchors.dtype).expand(problems, *rows.shape[1:])
        extended += (pools.queued(side, rows, options),)
    return dataclasses.replace(side, pools=extended)


def _stats(
    both: tuple[pools.Side, ...], each: Tensor, lses: tuple[Tensor, ...], options: pools.Options,
    kept: Tensor | None, batch: torch.Size, direction: str,
) -> Stats:  # fmt: skip
    def mean(values: Tensor) -> Tensor:
        if kept is None:
            return values.mean(1).reshape(batch)
        return (torch.where(kept, values, 0.0).sum(1) / kept.sum(1)).reshape(batch)

    with torch.no_grad():
        summaries = [pools.summary(side, options) for side in both]
    averages = {name: torch.stack([mean(s[name]) for s in summaries]).mean(0) for name in summaries[0]}
    by_side: dict[str, Tensor] = {}
    for name, lse, found in zip({"x_to_y": "x", "y_to_x": "y"}.get(direction, "xy"), lses, summaries, strict=True):
        by_side[f"{name}_lse"] = (lse if kept is None else torch.where(kept, lse, -torch.inf)).reshape(*batch, -1)
        by_side[f"{name}_accuracy"] = mean(found["accuracy"])
    return Stats(
        x_lse=by_side.get("x_lse"),
        y_lse=by_side.get("y_lse"),
        mutual_information=averages["log_count"] - mean(each.detach()),
        x_accuracy=by_side.get("x_accuracy"),
        y_accuracy=by_side.get("y_accuracy"),
        **{name: averages[name] for name in ("positive", "negative", "entropy", "effective_negatives")},
    )


class _Scaled(torch.autograd.Function):
    """A loss whose gradients are there already: the backward pass multiplies them by its own gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, factor: float, *grads_and_inputs: Tensor) -> Tensor:
        """The gradients are those of ``factor`` times the loss."""
        half = len(grads_and_inputs) // 2
        ctx.save_for_backward(*grads_and_inputs[:half])
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, grad = ctx.saved_tensors, grad / ctx.factor
        scaled = [
            (grad.reshape(grad.shape + (1,) * (own.ndim - grad.ndim)) * own.to(grad.dtype)).to(own.dtype)
            for own in saved
        ]
        return None, None, *len(saved) * [None], *scaled


def _already_differentiated(
    x: Tensor, y: Tensor, given: dict[str, Any], settings: dict[str, Any]
) -> tuple[Tensor, Stats]:
    batch, n = x.shape[:-2], x.shape[-2]
    _, per_anchor = logit_scales("info_nce", given["temperature"], batch, x)  # refuses what does not fit
    inputs = {"x": x, "y": y, **given}
    # each problem has its own: the gradient of one is scaled with that of its loss
    if isinstance(given["temperature"], Tensor):
        one = given["temperature"].numel() == 1
        temperature = given["temperature"].reshape(()) if one else given["temperature"]
        inputs["temperature"] = temperature.expand((*batch, n) if per_anchor else batch)
    if given["weights"] is not None:
        inputs["weights"] = per_row("info_nce", "weights", given["weights"], x, FLOATS).reshape(*batch, n)
    if given["queue"] is not None:
        inputs["queue"] = given["queue"].expand(*batch, *given["queue"].shape[-2:])
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    leaves = {name: tensor.detach().requires_grad_(tensor.requires_grad) for name, tensor in tensors.items()}
    loss, stats = _info_nce(**{**inputs, **leaves}, **settings, stats=True)
    assert stats is not None
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    fixed = Stats(*(field.detach() if isinstance(field, Tensor) else field for field in stats))  # type: ignore[arg-type]
    if not wanted:
        return loss, fixed
    # the gradient of a mean may be too small for float16 until a scaler has multiplied it; that of a sum is not
    halves = settings["reduction"] == "mean" and torch.float16 in (x.dtype, autocast_dtype(x))
    factor = 2.0 ** (n.bit_length() - 1) if halves else 1.0
    found = torch.autograd.grad((factor * loss).sum(), [leaves[name] for name in wanted])
    grads = dict(zip(wanted, found, strict=True))
    norms = {
        f"{name}_gradient": grads[name].to(loss.dtype).flatten(-2).norm(dim=-1) / factor
        for name in ("x", "y") if name in grads
    }  # fmt: skip
    scaled: Tensor = _Scaled.apply(loss.detach(), factor, *found, *(tensors[name] for name in wanted))  # type: ignore[no-untyped-call]
    return scaled, fixed._replace(**norms)


def _teacher(
    teacher: tuple[Tensor, Tensor, float], normalize: bool, x: Tensor, dtype: torch.dtype, scale: Tensor,
    kept: Tensor | None,
) -> pools.Teacher:  # fmt: skip
    tx, ty, temperature = teacher
    problems = math.prod(x.shape[:-2])
    left, right = (embeddings(_kept_rows(rows.detach(), kept), normalize, problems).to(dtype) for rows in (tx, ty))
    if readable(left):
        require_finite_tables("info_nce", {"the teacher's x": left, "the teacher's y": right})
    return pools.Teacher(left, right, torch.full_like(scale, 1 / temperature, requires_grad=False))


def _bias(bias: float | Tensor, batch: torch.Size, x: Tensor, dtype: torch.dtype) -> Tensor:
    if not isinstance(bias, Tensor):
        wrong = isinstance(bias, bool) or not isinstance(bias, (int, float))
        # a compiler that takes the bias for a variable does not know its value
        if wrong or (not torch.compiler.is_compiling() and not math.isfinite(bias)):
            raise ValueError(f"sigmoid_loss: bias must be a finite number or a tensor, got {bias!r}")
        return torch.full((math.prod(batch),), float(bias), dtype=dtype, device=x.device)
    try:
        bias = bias.reshape(()) if bias.numel() == 1 else bias
        return bias.to(device=x.device, dtype=dtype).expand(batch).reshape(-1)
    except RuntimeError as error:
        raise ValueError(
            f"sigmoid_loss: bias must broadcast to the leading dimensions {tuple(batch)}, got {tuple(bias.shape)}"
        ) from error


def _workspace(workspace: int | None, scale: Tensor, m: int, backend: str) -> int:
    if workspace is not None:
        return int(workspace)
    if backend == "cuda":
        return 0
    everything = scale.numel() * m * scale.itemsize
    return everything if everything <= KEPT_BYTES else 0


def _require_options(
    x: Tensor, direction: str, negatives: Tensor | None, queue: Tensor | None, groups: Tensor | None, positives: str,
    label_smoothing: float, teacher: tuple[Tensor, Tensor, float] | None, margin: float | None, reduction: str,
    stats: bool | str, workspace: int | None, backend: str,
) -> None:  # fmt: skip
    """Each option by itself, then those that exclude each other."""
    one_of("info_nce", "direction", direction, DIRECTIONS)
    one_of("info_nce", "positives", positives, POSITIVES)
    one_of("info_nce", "reduction", reduction, REDUCTIONS)
    one_of("info_nce", "backend", backend, BACKENDS)
    whole = isinstance(workspace, numbers.Integral) and not isinstance(workspace, bool)
    if workspace is not None and (not whole or workspace < 0):
        raise ValueError(f"info_nce: workspace must be None or a number of bytes, not negative, got {workspace!r}")
    if stats not in (False, True, "gradient"):
        raise ValueError(f"info_nce: stats must be False, True or 'gradient', got {stats!r}")
    number("info_nce", "label_smoothing", label_smoothing)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"info_nce: label_smoothing must be in [0, 1), got {label_smoothing}")
    if margin is not None and not math.isfinite(number("info_nce", "margin", margin)):
        raise ValueError(f"info_nce: margin must be a finite number or None, got {margin}")
    batch, n, d = x.shape[:-2], *x.shape[-2:]
    if negatives is not None:
        require_like("info_nce", "negatives", negatives, x, ((*batch, n, "h", d),))
    if queue is not None:
        require_like("info_nce", "queue", queue, x, (("m", d), (*batch, "m", d)))
    if teacher is not None:
        if not isinstance(teacher, (tuple, list)) or len(teacher) != 3:
            raise TypeError("info_nce: teacher must be (tx, ty, teacher_temperature)")
        for name, rows in zip(("teacher's x", "teacher's y"), teacher[:2], strict=True):
            require_like("info_nce", name, rows, x, ((*batch, n, "d'"),), any_float=True)
        if teacher[0].shape != teacher[1].shape:
            raise ValueError(
                "info_nce: the teacher's x and y must have one shape, "
                f"got {tuple(teacher[0].shape)} and {tuple(teacher[1].shape)}"
            )
        if not 0 < number("info_nce", "the teacher's temperature", teacher[2]) < math.inf:
            raise ValueError(f"info_nce: the teacher's temperature must be positive and finite, got {teacher[2]}")
    more, grouped = negatives is not None or queue is not None, positives != "pair"
    for wrong, message in (
        (grouped and groups is None, f"positives={positives!r} needs groups"),
        (more and direction == "y_to_x", "negatives and queue are candidates for x: direction must not be 'y_to_x'"),
        (teacher is not None and (more or margin is not None or grouped),
         "teacher excludes negatives, queue, margin and positives other than 'pair'"),
        (margin is not None and (grouped or label_smoothing > 0),
         "margin excludes label_smoothing and positives other than 'pair'"),
        (positives == "in" and label_smoothing > 0, "positives='in' has no label_smoothing: its target is a sum"),
        (stats == "gradient" and reduction == "none", "stats='gradient' needs reduction 'mean' or 'sum'"),
    ):  # fmt: skip
        if wrong:
            raise ValueError(f"info_nce: {message}")

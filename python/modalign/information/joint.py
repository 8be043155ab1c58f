"""The information that two modalities have about a label, split exactly into redundant, unique and synergistic parts.

``pid_of_joint`` solves the decomposition of Bertschinger et al. 2014 (arXiv:1311.2839) for a discrete distribution:

    I_min = min_q I_q(X1, X2; Y)   over all q with q(x1, y) = p(x1, y) and q(x2, y) = p(x2, y)

    unique_1 = I_min - I(X2; Y)          redundancy = I(X1; Y) + I(X2; Y) - I_min
    unique_2 = I_min - I(X1; Y)          synergy    = I(X1, X2; Y) - I_min

The problem is convex. Its dual, with a number a(x1, y) and b(x2, y) for every constraint, is

    I_min - H(Y) = max  sum a p(x1, y) + sum b p(x2, y)   such that all   log sum_y exp(a(x1, y) + b(x2, y)) <= 0

and both sides are solved together by a primal-dual interior-point method. Its unknowns are q, a, b and the slacks s of
the dual constraints, and every step is Newton's for

    log q(y | x1, x2) = a + b + s        sum_x2 q = p(x1, y),  sum_x1 q = p(x2, y)        q(x1, x2) s = share w(x1, x2)

as the share falls to zero. After elimination only a and b remain, (|X1| + |X2|) |Y| numbers. At the end q and (a, b)
are made feasible, so that they bracket I_min, and the gap between them is checked.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Information", "pid_of_joint"]

Array = NDArray[np.float64]

GAP = 1e-8  # nats between the bounds at which I_min counts as solved; the method stops at a tenth of it
NEGLIGIBLE = 1e-9  # total probability of the rarest outcomes, which are left out: less than 1e-7 bits
STEPS = 200


@dataclasses.dataclass(frozen=True)
class Information:
    """The information of modality 1 and modality 2 about a label, in bits.

    redundancy + unique_1 = mutual_1, redundancy + unique_2 = mutual_2, and the four parts add up to mutual_12.

    Attributes:
        redundancy: What each modality tells.
        unique_1: What modality 1 alone tells.
        unique_2: What modality 2 alone tells.
        synergy: What only both together tell.
        mutual_1: I(X1; Y).
        mutual_2: I(X2; Y).
        mutual_12: I(X1, X2; Y).
    """

    redundancy: float
    unique_1: float
    unique_2: float
    synergy: float
    mutual_1: float
    mutual_2: float
    mutual_12: float


def pid_of_joint(p: ArrayLike) -> Information:
    """Return the partial information decomposition of a discrete joint distribution.

    Args:
        p: (|X1|, |X2|, |Y|) probabilities that sum to one, within 1e-6.

    Returns:
        The parts in bits, correct to 1e-7, from float64. Time is O((|X1| + |X2|)^3 |Y|^3) for each of about 20 to 100
        steps; memory is O((|X1| + |X2|)^2 |Y|^2).

    Raises:
        ValueError: For another rank, an empty axis, negative or non-finite entries, or a sum other than one.
        ArithmeticError: If the probabilities are too far apart for the solver.

    Source:
        Bertschinger, Rauh, Olbrich, Jost and Ay 2014 (arXiv:1311.2839).

    Examples:
        >>> import numpy as np
        >>> from modalign.information import pid_of_joint
        >>> p = np.zeros((2, 2, 2))  # Y = X1 xor X2
        >>> p[0, 0, 0] = p[0, 1, 1] = p[1, 0, 1] = p[1, 1, 0] = 0.25
        >>> round(pid_of_joint(p).synergy, 6)
        1.0
    """
    return decomposed(p, GAP)


def decomposed(p: ArrayLike, gap: float) -> Information:
    """Return ``pid_of_joint`` to a precision: ``gap`` nats between the bounds at which I_min counts as solved."""
    joint = _distribution(p)
    mutual_1, mutual_2 = _mutual(joint.sum(1)), _mutual(joint.sum(0))
    mutual_12 = _mutual(joint.reshape(-1, joint.shape[2]))
    # between these bounds whatever the last digits of the solver say
    least = min(max(_least_mutual(joint, gap), mutual_1, mutual_2), mutual_12)
    parts = (mutual_1 + mutual_2 - least, least - mutual_2, least - mutual_1, mutual_12 - least)
    bits = [float(value / np.log(2)) for value in (*parts, mutual_1, mutual_2, mutual_12)]
    return Information(*(max(value, 0.0) for value in bits))


def _distribution(p: ArrayLike) -> Array:
    joint = np.asarray(p, dtype=np.float64)
    if joint.ndim != 3 or 0 in joint.shape:
        raise ValueError(
            f"pid_of_joint: p must be a joint distribution p[x1, x2, y] with no empty axis, got shape {joint.shape}"
        )
    if not np.isfinite(joint).all() or (joint < 0).any():
        raise ValueError(
            f"pid_of_joint: probabilities must be finite and not negative, got {joint.min()} to {joint.max()}"
        )
    if abs(joint.sum() - 1) > 1e-6:
        raise ValueError(f"pid_of_joint: probabilities must sum to 1, got {joint.sum()}: divide p by its sum first")
    rising = np.sort(joint, axis=None)
    negligible = np.searchsorted(np.cumsum(rising), NEGLIGIBLE)
    joint = np.where(joint < rising[negligible], 0.0, joint)
    joint = joint / joint.sum()
    used = [joint.sum(tuple({0, 1, 2} - {axis})) > 0 for axis in range(3)]
    kept: Array = joint[np.ix_(*used)]
    return kept


def _mutual(joint: Array) -> float:
    """Return I(X; Y) of p[x, y] in nats."""
    return float(_entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint))


def _entropy(p: Array) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())


def _least_mutual(joint: Array, wanted: float) -> float:
    """Return I_min in nats, solved to ``wanted`` nats."""
    p1, p2 = joint.sum(1), joint.sum(0)
    most = _mutual(joint.reshape(-1, joint.shape[2]))
    if most - max(_mutual(p1), _mutual(p2)) < wanted / 100:
        return most  # one modality adds nothing to the other, so p itself is the minimum
    solver = _InteriorPoint(p1, p2, wanted)
    gap = solver.upper - solver.lower
    if not gap < wanted:
        raise ArithmeticError(
            f"pid_of_joint: the minimum is known to {gap:.1e} nats, not to {wanted:.0e}: probabilities from "
            f"{joint[joint > 0].min():.1e} to {joint.max():.1e} are too far apart; merge or drop the rarest outcomes"
        )
    return _entropy(p1.sum(0)) + solver.upper


class _InteriorPoint:
    """The coupling q[x1, x2, y] of p1[x1, y] and p2[x2, y] with the least I_q(X1, X2; Y).

    ``upper`` and ``lower`` bound its I_q - H(Y) in nats.
    """

    def __init__(self, p1: Array, p2: Array, wanted: float = GAP) -> None:
        self.p1, self.p2, self.wanted = p1, p2, wanted
        # entries that no coupling can give weight to are left out: their multiplier is -inf
        self.free1, self.free2 = p1 > 0, p2 > 0
        self.live = self.free1[:, None] & self.free2[None]
        self.met: NDArray[np.bool_] = np.asarray(self.live.any(2))
        self.q = p1[:, None] * p2[None] / p1.sum(0)  # independent given y: the right marginals from the start
        self.a = _log(p1) - np.log(p1.sum(1, keepdims=True))
        self.b = _log(p2) - np.log(p2.sum(1, keepdims=True)) - np.log(p2.sum(0))
        self.a -= self.violation().max(1, keepdims=True) + 0.5
        self.slack = np.where(self.met, np.maximum(-self.violation(), 0.1), 1.0)
        weight = self.q.sum(2)  # the common pairs get more of the gap
        self.weight = weight / weight.sum()
        # both bounds hold at every step; the best of each is kept, because a later step can be worse
        self.upper, self.lower = np.inf, -np.inf
        for _ in range(STEPS):
            wrong = self.step()
            upper, lower = self.bracket()
            self.upper, self.lower = min(self.upper, upper), max(self.lower, lower)
            if min(wrong, self.upper - self.lower) < wanted / 10:
                break

    def violation(self) -> Array:
        """Return log sum_y exp(a + b), which must not be positive."""
        return _log(np.exp(self.a[:, None] + self.b[None]).sum(2))

    def step(self) -> float:
        """Take a Newton step, and return the largest error before it, of the gap, the marginals or the multipliers."""
        pair = self.q.sum(2)
        soft = self.q / np.where(self.met, pair, 1.0)[:, :, None]
        logits = np.where(self.live, self.a[:, None] + self.b[None], 0.0)
        error = np.where(self.live, np.log(np.where(self.live, soft, 1.0)) - logits - self.slack[:, :, None], 0.0)
        gap = float((pair * self.slack)[self.met].sum())
        off1, off2 = self.q.sum(1) - self.p1, self.q.sum(0) - self.p2
        wrong = max(gap, np.abs(off1).sum(), np.abs(off2).sum(), float(self.violation().max()))
        share = 0.3 * max(gap, self.wanted / 100) * self.weight

        # the multipliers' change d = da + db moves q by  q (d - error) + stiff * soft * sum_y soft (d - error) + ...
        stiff = np.where(self.met, pair / self.slack - pair, 0.0)
        held = self.q * error + (stiff * (soft * error).sum(2))[:, :, None] * soft
        aim = soft * (share / self.slack)[:, :, None] - held
        gradient = np.concatenate([(aim.sum(1) - self.p1).reshape(-1), (aim.sum(0) - self.p2).reshape(-1)])
        da, db = self.solve((stiff[:, :, None] * soft)[:, :, :, None] * soft[:, :, None, :], gradient)
        change = np.where(self.live, da[:, None] + db[None] - error, 0.0)
        d_slack = -(soft * change).sum(2)
        d_pair = np.where(self.met, (share - pair * d_slack) / self.slack - pair, 0.0)
        d_q = soft * d_pair[:, :, None] + self.q * (change + d_slack[:, :, None])

        length = min(1.0, _room(self.q, d_q, self.live), _room(self.slack, d_slack, self.met))
        self.q = self.q + length * d_q
        self.slack = np.where(self.met, self.slack + length * d_slack, 1.0)
        self.a = np.where(self.free1, self.a + length * da, -np.inf)
        self.b = np.where(self.free2, self.b + length * db, -np.inf)
        return float(wrong)

    def solve(self, cross: Array, gradient: Array) -> tuple[Array, Array]:
        """Return the step of a and b, from the curvature in (x1, x2, y, y') without its diagonal q."""
        n1, n2, ny = self.q.shape
        y = np.arange(ny)
        cross[:, :, y, y] += self.q
        system = np.zeros((len(gradient), len(gradient)))
        system[: n1 * ny, n1 * ny :] = cross.transpose(0, 2, 1, 3).reshape(n1 * ny, n2 * ny)
        system[n1 * ny :, : n1 * ny] = system[: n1 * ny, n1 * ny :].T
        for start, blocks in ((0, cross.sum(1)), (n1 * ny, cross.sum(0))):
            rows = start + np.arange(len(blocks) * ny).reshape(-1, ny)
            system[rows[:, :, None], rows[:, None, :]] = blocks
        # scaled to a unit diagonal; a + c(y), b - c(y) changes nothing, so a little damping avoids a singular system
        free = np.concatenate([self.free1.reshape(-1), self.free2.reshape(-1)])
        scale = np.sqrt(system.diagonal()[free])
        system = system[np.ix_(free, free)] / scale[:, None] / scale
        system[np.diag_indices(len(system))] += 1e-13
        step = np.zeros_like(gradient)
        step[free] = np.linalg.solve(system, -gradient[free] / scale) / scale
        return step[: n1 * ny].reshape(n1, ny), step[n1 * ny :].reshape(n2, ny)

    def bracket(self) -> tuple[float, float]:
        """Bound I_min - H(Y) from above by a coupling with the right marginals, from below by feasible multipliers."""
        a = self.a - np.maximum(self.violation().max(1, keepdims=True), 0.0)
        lower = float(a[self.free1] @ self.p1[self.free1] + self.b[self.free2] @ self.p2[self.free2])
        # cut the marginals down where they are too large, then add what is missing, independent given y
        q = self.q
        q = q * np.minimum(_ratio(self.p1, q.sum(1)), 1.0)[:, None]
        q = q * np.minimum(_ratio(self.p2, q.sum(0)), 1.0)[None]
        missing1, missing2 = np.maximum(self.p1 - q.sum(1), 0.0), np.maximum(self.p2 - q.sum(0), 0.0)
        q = q + missing1[:, None] * _ratio(missing2, np.broadcast_to(missing2.sum(0), missing2.shape))[None]
        pair = np.broadcast_to(q.sum(2, keepdims=True), q.shape)
        inside = q > 0
        return float((q[inside] * np.log(q[inside] / pair[inside])).sum()), lower


def _log(values: Array) -> Array:
    return np.log(values, out=np.full_like(values, -np.inf), where=values > 0)


def _room(values: Array, change: Array, where: NDArray[np.bool_]) -> float:
    """Return the share of a step that keeps positive values positive."""
    falling = where & (change < 0)
    return 0.99 * float((-values[falling] / change[falling]).min(initial=np.inf))


def _ratio(wanted: Array, has: Array) -> Array:
    return np.divide(wanted, has, out=np.zeros_like(wanted), where=has > 0)

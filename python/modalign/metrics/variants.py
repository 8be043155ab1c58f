"""The variants of a metric: the equation of a paper, or what its published program computes in its place."""

from __future__ import annotations

from modalign.common.checks import one_of

__all__ = ["EPSILON", "VARIANTS", "require_variant"]

VARIANTS = ("published", "code")
EPSILON = 1e-6  # that the program of Huh et al. adds to every denominator


def require_variant(operation: str, variant: str) -> None:
    """Check the name of a variant.

    Raises:
        ValueError: For another name than those of ``VARIANTS``.
    """
    one_of(operation, "variant", variant, VARIANTS)

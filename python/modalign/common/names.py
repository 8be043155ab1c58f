"""Names that users and registries write: "module:function" without importing it, and names with a slip."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["did_you_mean", "nearest", "require_reference", "resolve", "suggestion"]

# what users write for a choice that has another name here; it counts only where that choice exists
SYNONYMS = {
    "l2": "euclidean",
    "inner_product": "dot",
    "ip": "dot",
    "x2y": "x_to_y",
    "y2x": "y_to_x",
    "symmetric": "both",
    "average": "mean",
    "avg": "mean",
}


def resolve(name: str) -> Any:
    """Import and return what "module:function" names.

    Examples:
        >>> from modalign.common.names import resolve
        >>> resolve("math:hypot")(3, 4)
        5.0
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def require_reference(name: object, what: str) -> None:
    """Check that a name has the form "module:function"; nothing is imported. ValueError otherwise.

    Examples:
        >>> from modalign.common.names import require_reference
        >>> require_reference("my_metrics.py", "Metric mine: score")
        Traceback (most recent call last):
        ValueError: Metric mine: score must be "module:function", such as "my_metrics:mine", got 'my_metrics.py'
    """
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        raise ValueError(f'{what} must be "module:function", such as "my_metrics:mine", got {name!r}')


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return a question that names the most similar of the known names; "" if none is similar.

    Examples:
        >>> from modalign.common.names import did_you_mean
        >>> did_you_mean("mutual-knn", ["mutual_knn", "cka"])
        'did you mean mutual_knn?'
    """
    similar = nearest(name, known)
    return f"did you mean {similar}?" if similar is not None else ""


def suggestion(name: object, known: Iterable[object]) -> str:
    """Return the end of a message that names the most similar of the choices; "" if none is similar.

    Examples:
        >>> from modalign.common.names import suggestion
        >>> suggestion("l2", ["cosine", "euclidean"])
        '; did you mean euclidean?'
    """
    hint = did_you_mean(name, known)
    return f"; {hint}" if hint else ""


def nearest(name: object, known: Iterable[object]) -> str | None:
    """Return the most similar of the known names, None if none is similar; case and dashes do not count.

    Examples:
        >>> from modalign.common.names import nearest
        >>> nearest("mutual-knn", ["mutual_knn", "cka"])
        'mutual_knn'
    """
    plain = {str(key).lower().replace("-", "_"): str(key) for key in known}
    written = str(name).lower().replace("-", "_")
    if SYNONYMS.get(written) in plain:
        return plain[SYNONYMS[written]]
    near = difflib.get_close_matches(written, plain, 1)
    return plain[near[0]] if near else None

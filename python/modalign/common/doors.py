"""The only way from results up to the rooms that draw them: results name a drawing, and this table names its function.

Results live below ``report``, so they cannot import it. A result that shows itself (``_repr_html_``, ``plot``) looks up
its drawing here; the layer test knows this door and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modalign.common.names import resolve

__all__ = ["DRAWINGS", "drawing"]

# what is drawn -> "module:function" in report
DRAWINGS: dict[str, str] = {
    "alignment": "modalign.report.pages.alignment:write",
}


def drawing(name: str) -> Callable[..., Any]:
    """Return the function that draws ``name``, one of ``DRAWINGS``."""
    function: Callable[..., Any] = resolve(DRAWINGS[name])
    return function

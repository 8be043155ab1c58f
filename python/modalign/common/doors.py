"""The only way from results up to the rooms that draw them: results name a drawing, and this table names its function.

Results live below ``report``, so they cannot import it. A result that shows itself (``_repr_html_``, ``plot``) looks up
its drawing here; the layer test allows no other way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from modalign.common.names import resolve

__all__ = ["DRAWINGS", "Plot", "drawing"]

# what is drawn -> "module:function" in report
DRAWINGS: dict[str, str] = {
    "alignment": "modalign.report.pages.alignment:save",
    "alignment_html": "modalign.report.notebook:alignment_html",
    "alignment_plot": "modalign.report.notebook:alignment_plot",
    "sweep": "modalign.report.pages.sweep:write",
    "comparison": "modalign.report.pages.comparison:write",
    "tune": "modalign.report.pages.tune:write",
    "advice": "modalign.report.pages.advice:write",
    "emergence": "modalign.report.pages.emergence:write",
    "align": "modalign.report.pages.strength:write",
    "multibench": "modalign.report.pages.multibench:write",
    "vision-language": "modalign.report.pages.vision_language:write",
}


class Plot(Protocol):
    """A picture that a notebook shows and ``save`` writes."""

    svg: bytes
    png: bytes

    def _repr_svg_(self) -> str: ...

    def save(self, path: str | Path) -> Path:
        """Write the picture to a .svg or .png file and return the path."""
        ...


def drawing(name: str) -> Callable[..., Any]:
    """Return the function that draws ``name``, one of ``DRAWINGS``."""
    function: Callable[..., Any] = resolve(DRAWINGS[name])
    return function

"""The report of a sweep: one HTML file with the conclusions first, and the same conclusions as text.

``write``, ``draw`` and ``conclusions`` take the folder that a finished sweep left: runs.parquet, curves.parquet,
config.yaml and provenance.json. All raise ValueError, with one sentence, for a folder that is missing, damaged or
unfinished.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["conclusions", "draw", "write"]


def write(folder: Path) -> Path:
    """Write ``report.html`` into ``folder`` and return its path; the file appears whole or not at all.

    The page holds its own style, scripts and data: it opens without a network, and prints.
    """
    from modalign.experiments.sweep.results import read
    from modalign.files.atomic import write_atomically
    from modalign.report.pages.sweep import render

    path = Path(folder) / "report.html"
    page = render(read(Path(folder)))
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def draw(folder: Path) -> Path:
    """Draw the figures of the report as SVG and PNG into ``folder/figures``, and return its path.

    The same results give the same bytes. Takes some seconds.
    """
    from modalign.experiments.sweep.results import read
    from modalign.report.figures.sweep import sweep_pictures
    from modalign.report.html import write_pictures

    return write_pictures(Path(folder) / "figures", sweep_pictures(read(Path(folder))))


def conclusions(folder: Path) -> list[str]:
    """What the sweep in ``folder`` shows, one sentence for each case, in the order of its configuration."""
    from modalign.experiments.sweep.findings import findings
    from modalign.experiments.sweep.results import read
    from modalign.report.words import sentences

    return sentences(findings(read(Path(folder))))

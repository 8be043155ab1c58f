"""Reports: results as HTML pages, as pictures and as sentences.

html        the parts of a page, and the file they make
words       findings and numbers in words, which pages and the command line share
palette     the colours of all figures, pages and terminal tables
figures     one specification of figures, drawn on a page and as still pictures
pages       one module for each kind of page
notebook    alignments in a notebook, as a table and as a picture
templates   HTML, style and script of the pages

``write``, ``draw`` and ``conclusions`` take the folder that a finished sweep left: runs.parquet, curves.parquet,
config.yaml and provenance.json. Statistics, verdicts and reading of results do not belong here, but in
``modalign.experiments``; printing does not either, but in ``modalign.cli``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

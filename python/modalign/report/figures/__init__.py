"""Figures: one specification, from which pages draw with Plotly and stills with matplotlib.

specification   the parts of a figure: traces, layout, legend; a sheet of panels is one picture
drawing         traces: lines, points, bands, bars, boxes, heat maps
axes            axes, straight lines and layouts of panels
stills          sheets drawn by matplotlib
pictures        drawn pictures and their files, SVG and PNG
accuracy        panels of a sweep: accuracy against strength
alignment       panels of a sweep: alignment against strength, accuracy against alignment
scores          panels of one alignment
training        panels of a sweep: training curves
sweep           all sheets of a sweep

Figures of a study stand in the module of its page. Statistics do not belong here: results and findings come from
``modalign.experiments``. Plotly and matplotlib are imported when something is drawn.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

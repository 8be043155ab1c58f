"""The colours of every page, picture and terminal table: one table of roles, each with a light and a dark colour.

Figures name colours by role (``var(--modality-1)``). A page defines the roles as CSS variables, once for each colour
scheme; a still picture takes the colour of the light scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

__all__ = ["ROLES", "SERIES", "VERDICTS", "colour", "css", "modality", "ramp", "series", "shade", "step", "variable"]

Colour = str | tuple[float, float, float, float]

# role: (colour of the light scheme, colour of the dark scheme)
ROLES: dict[str, tuple[str, str]] = {
    "ground": ("#f7f7f5", "#14161a"),
    "panel": ("#ffffff", "#1c1f24"),
    "ink": ("#1b1d21", "#eceef1"),
    "muted": ("#5b6169", "#a4abb5"),
    "axis": ("#b9bec6", "#555c66"),
    "grid": ("#e8eaed", "#2b2f36"),
    "line": ("#dfe2e6", "#31363e"),
    "link": ("#0b5cad", "#7db8f0"),
    "good": ("#00664b", "#7ddcbd"),
    "good-ground": ("#dcf1ea", "#143a30"),
    "bad": ("#a13c00", "#f5b183"),
    "bad-ground": ("#fbe7da", "#472811"),
    "plain-ground": ("#eceef1", "#2b2f36"),
    # modalities, and the model that is fused from them
    "modality-1": ("#0072b2", "#56b4e9"),
    "modality-2": ("#c8500a", "#f0954d"),
    "modality-3": ("#007a5a", "#35c79d"),
    "modality-4": ("#9a6f00", "#e5b73b"),
    "modality-fused": ("#8a4fb0", "#c39be6"),
    # lines of one picture that stand for cases, encoders, measures or sweeps
    "series-1": ("#007a5a", "#35c79d"),
    "series-2": ("#b0559b", "#dd8fca"),
    "series-3": ("#9a6f00", "#e5b73b"),
    "series-4": ("#2a7fb8", "#6cb4e6"),
    "series-5": ("#444b55", "#c3c9d1"),
    "series-6": ("#c0392b", "#f0857a"),
}
MODALITIES = 4  # roles of modalities that have a number
SERIES = 6  # roles of series
DRAWN = ("modality-", "series-", "muted", "ink")  # beginnings of the roles that lines and bands have
OPACITY = (0.16, 0.2)  # of a band, in the light and the dark scheme
# the corner colours of viridis: dark to light with even steps for every kind of colour vision
RAMP = ("440154", "46327e", "365c8d", "277f8e", "1fa187", "4ac16d", "a0da39", "fde725")
# verdict on a claim: (class of its mark on a page, its colour on a terminal)
VERDICTS = {"reproduced": ("gain", "green"), "partly": ("none", "yellow"), "not": ("harm", "red")}


def variable(role: str) -> str:
    """Return the CSS variable that holds the colour of ``role``."""
    return f"var(--{role})"


def modality(part: str | int) -> str:
    """Return the role of a modality by its number, or of the fused model by the name ``fused``."""
    return f"modality-{part}" if part == "fused" else f"modality-{(int(part) - 1) % MODALITIES + 1}"


def series(index: int) -> str:
    """Return the role of the series with this index, counted from 0; the colours repeat after ``SERIES``."""
    return f"series-{index % SERIES + 1}"


def step(index: int, count: int) -> str:
    """Return the role of one of ``count`` colours in order, such as those of rising strengths."""
    return f"ramp-{count}-{index}"


def ramp(count: int, *, dark: bool) -> list[str]:
    """Return ``count`` colours in order, without the end of the ramp that the background of the scheme swallows."""
    start, end = (0.25, 1.0) if dark else (0.0, 0.86)
    anchors = np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in RAMP], dtype=np.float64)
    places = np.linspace(start, end, count) * (len(RAMP) - 1)
    channels = [np.interp(places, np.arange(len(RAMP)), anchors[:, i]) for i in range(3)]
    return [f"#{round(r):02x}{round(g):02x}{round(b):02x}" for r, g, b in zip(*channels, strict=True)]


def css(figures: str = "") -> str:
    """Return the style that defines every role for both schemes.

    Args:
        figures (str): The figures of the page as text. The ramps whose steps they name are defined, too.
    """
    counts = sorted({int(count) for count in re.findall(r"var\(--ramp-(\d+)-", figures)})
    light, dark = (" ".join(f"--{role}: {value};" for role, value in _scheme(i, counts).items()) for i in (0, 1))
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not(.paper) {{ {dark} }} }}\n"
        ":root.paper { color-scheme: light; }"
    )


def colour(value: str) -> Colour:
    """Return a colour of a figure, a CSS variable or a CSS colour, as matplotlib takes it: in the light scheme."""
    if value.startswith("var("):
        role = value[len("var(--") : -1]
        value = _scheme(0, [int(role.split("-")[1])] if role.startswith("ramp-") else [])[role]
    channels = re.fullmatch(r"rgba\((\d+), ?(\d+), ?(\d+), ?([\d.]+)\)", value)
    if channels is None:
        return value
    red, green, blue, alpha = (float(part) for part in channels.groups())
    return red / 255, green / 255, blue / 255, alpha


def shade(share: float) -> str:
    """Return the background of a cell on a terminal: the larger ``share``, from 0 to 1, the brighter."""
    level = round(60 * share)
    return f"rgb(30,{30 + level},{30 + 2 * level})"


def _scheme(number: int, counts: Iterable[int]) -> dict[str, str]:
    """Return the colour of every role in the light (0) or the dark (1) scheme, with the steps of the ramps.

    A role that is drawn has a band: its colour, translucent.
    """
    drawn = {role: pair[number] for role, pair in ROLES.items() if role.startswith(DRAWN)}
    for count in counts:
        drawn |= {step(index, count): shade for index, shade in enumerate(ramp(count, dark=number == 1))}
    bands = {f"{role}-band": _translucent(value, OPACITY[number]) for role, value in drawn.items()}
    return {role: pair[number] for role, pair in ROLES.items()} | drawn | bands


def _translucent(value: str, opacity: float) -> str:
    red, green, blue = (int(value[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"

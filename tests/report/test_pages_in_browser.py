"""Every kind of page in a real browser: silent, whole, readable in both schemes, no wider than the screen or paper."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from selenium import webdriver

from report.looking import DESKTOP, PHONE, Look
from report.studies import every_page

PAGES = (
    "sweep", "fused", "emergence", "align", "vision-language", "multibench", "tune", "alignment", "layers", "compare",
    "advise",
)  # fmt: skip
PAPER = (718, 1000)  # pixels of A4 between margins of 1 cm
READABLE = 4.5  # of contrast, for text of this size (WCAG 2.2, AA)

# the contrast of every piece of text with the first ground behind it that is not clear
CONTRASTS = """
const channels = (colour) => colour.match(/[0-9.]+/g).map(Number);
const luminance = (rgb) => {
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = rgb.slice(0, 3).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.99) return colour;
  }
  return [255, 255, 255];
};
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || !element.getClientRects().length) continue;
  if (element.closest(".heatmap-label, .bartext")) continue;  // on a cell or a bar: Plotly picks black or white
  const style = getComputedStyle(element);
  const ink = channels(element.closest("svg") ? style.fill : style.color);
  const pair = [luminance(ink), luminance(ground(element))];
  found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), walk.currentNode.textContent.trim()]);
}
return found;
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, int]]]:
    found = every_page(tmp_path_factory.mktemp("pages"))
    assert tuple(found) == PAGES
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_silent_and_whole(
    chromium: webdriver.Chrome, pages: dict[str, tuple[Path, dict[str, int]]], name: str
) -> None:
    path, tables = pages[name]
    look = Look(chromium, path)
    look.open_everything()
    assert look.console() == []
    assert [url for url in look.requests() if not url.startswith(("file://", "data:"))] == []
    images = look.run("return [...document.images].map((i) => [i.complete && i.naturalWidth, i.clientHeight, i.alt])")
    plots = look.run(
        "return [...document.querySelectorAll('[data-figure]')].map((p) => "
        "[p.clientWidth, p.querySelector('svg').clientHeight, p.getAttribute('aria-label')])"
    )
    assert images or plots
    for width, height, words in (*images, *plots):
        assert width > 150
        assert height > 80
        assert len(words) > 20
    for section, rows in tables.items():
        drawn = look.run("return document.querySelectorAll(arguments[0]).length", f"#{section} tbody tr")
        assert drawn == rows, section
    sentences = look.run("return [...document.querySelectorAll('.sentence')].map((s) => s.textContent.trim())")
    assert sentences
    assert all(len(sentence) > 20 and "nan" not in sentence for sentence in sentences)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_the_screen(
    chromium: webdriver.Chrome, pages: dict[str, tuple[Path, dict[str, int]]], name: str, size: tuple[int, int]
) -> None:
    look = Look(chromium, pages[name][0], size=size)
    look.open_everything()
    assert look.run("return document.documentElement.scrollWidth") <= size[0]
    out = look.run(
        """return [...document.querySelectorAll('[data-figure]')].filter((place) =>
             place.querySelector('svg').getBoundingClientRect().right >
             place.closest('figure').getBoundingClientRect().right + 0.5).map((place) => place.id)"""
    )
    assert out == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_word_can_be_read(
    chromium: webdriver.Chrome, pages: dict[str, tuple[Path, dict[str, int]]], name: str, scheme: str
) -> None:
    look = Look(chromium, pages[name][0], scheme=scheme)
    look.open_everything()
    found = look.run(CONTRASTS)
    assert len(found) > 30
    assert [(round(contrast, 2), words) for contrast, words in found if contrast < READABLE] == []
    dark = look.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_on_paper(
    chromium: webdriver.Chrome, pages: dict[str, tuple[Path, dict[str, int]]], name: str
) -> None:
    look = Look(chromium, pages[name][0])
    printed = chromium.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF")
    assert 1 <= content.count(b"/Type /Page\n") + content.count(b"/Type/Page/") <= 12
    width, height = PAPER
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        # what sticks out of the page would be cut off: a table cannot be scrolled on paper
        out = look.run(
            """return [...document.querySelectorAll('table, figure, li, p, h1, h2, h3')]
                 .filter((e) => e.getBoundingClientRect().right > arguments[0] + 1)
                 .map((e) => e.tagName + ' ' + e.textContent.trim().slice(0, 40))""",
            width,
        )
        assert out == []
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

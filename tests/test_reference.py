"""The equations of docstrings survive Markdown: ``<x_i, y_j>`` outside code would be read as a tag and vanish."""

import html
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PRODUCT = r"<[^<>\n]*,[^<>\n]*>"  # an inner product
SECTION = re.compile(r"^(?:Args|Arguments|Attributes|Returns|Yields|Raises):$")


def named(text: str) -> list[str]:
    return re.findall(r"^::: (\S+)", text, re.M)


def public(name: str) -> Iterator[object]:
    """Yield the object that the reference names, and what is shown below it."""
    try:
        subject: object = importlib.import_module(name)
    except ImportError:
        module, _, attribute = name.rpartition(".")
        subject = getattr(importlib.import_module(module), attribute)
    yield subject
    if isinstance(subject, ModuleType):
        for member in getattr(subject, "__all__", ()):
            yield getattr(subject, member)
    if inspect.isclass(subject):
        yield from (value for key, value in vars(subject).items() if not key.startswith("_"))


def pieces(docstring: str) -> Iterator[str]:
    """Yield the texts that mkdocstrings hands to Markdown one by one: entries of sections, and the text around them."""
    for part in re.split(r"^(?=\w+:$)", docstring, flags=re.M):
        head, _, body = part.partition("\n")
        if SECTION.match(head):
            yield from (inspect.cleandoc(entry) for entry in re.split(r"\n(?=\S| {4}\S)", f"\n{body}"))
        else:
            yield part


def shown(text: str) -> str:
    """Return what a browser shows of Markdown: no tags, entities decoded."""
    import markdown

    page = markdown.markdown(text, extensions=["tables", "admonition"])
    return html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", page))


def test_a_product_outside_code_would_vanish() -> None:
    assert "<x_i, y_j>" not in shown("With S = <x_i, y_j> / t")
    assert "<x_i, y_j>" in shown("With ``S = <x_i, y_j> / t``")


@pytest.mark.parametrize("page", [page for page in PAGES if named(page.read_text())], ids=lambda page: page.stem)
def test_every_equation_of_a_docstring_is_shown(page: Path) -> None:
    seen = 0
    for name in named(page.read_text(encoding="utf-8")):
        for subject in public(name):
            for text in pieces(inspect.getdoc(subject) or ""):
                for product in re.findall(PRODUCT, text):
                    seen += 1
                    assert product in shown(text), f"{name}: Markdown loses {product}; write it in double backticks"
    assert seen > 5 or page.stem != "reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_every_equation_of_a_page_is_shown(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    for product in re.findall(PRODUCT, text):
        assert product in shown(text), f"{page.name}: Markdown loses {product}; write it in backticks"


def test_the_site_shows_every_equation(tmp_path: Path) -> None:
    """Build the site as ``make docs`` does, where its packages are installed."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="the tools of the documentation are an extra of their own: make docs")
    assert shutil.which("git")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    page = html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", (tmp_path / "reference" / "index.html").read_text()))
    for product in ("<x_i, y_j> / temperature", "<z_i, z_j> / temperature", "<tx_i, ty_j>", "<x_i, y_i>"):
        assert product in page, product

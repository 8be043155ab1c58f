"""The picture of rooms in CONTRIBUTING equals the table of the layer test, and the code of its pages runs."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from import_graph import LAYERS, ROOT

PAGES = sorted((ROOT / "docs" / "adding").glob("*.md"))


def test_the_picture_of_the_rooms_equals_the_table_of_layers() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.split("<!-- rooms -->\n```\n")[1].split("\n```\n<!-- end -->")[0]
    assert [set(row.split()) for row in picture.split("\n")] == LAYERS


def test_contributing_links_a_page_for_each_kind_of_addition() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    linked = re.findall(r"\(docs/adding/([\w-]+)\.md\)", text)
    assert sorted(linked) == [page.stem for page in PAGES]
    assert set(linked) == {"metric", "study", "page", "data-set", "encoder", "operation", "backend"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """Save blocks that begin with a file name, run the others in order, and compare the output with the comments."""
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^(\d+)\. ", text, re.M)[:3] == ["1", "2", "3"]
    steps = []
    for indented in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.M | re.S):
        block = textwrap.dedent(indented)
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (tmp_path / name[1]).write_text(block, encoding="utf-8")
        else:
            steps.append(block)
    code = "\n".join(steps)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    assert [line for line in run.stdout.splitlines() if line in expected] == expected, run.stdout

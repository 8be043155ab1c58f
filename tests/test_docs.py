"""The Python blocks of the README and the pages run, public functions are documented, and links have targets."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import modalign
from modalign.experiments.studies.registry import studies_table

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", [name for name in modalign.__all__ if callable(getattr(modalign, name))])
def test_public_functions_are_documented(name: str) -> None:
    text = getattr(modalign, name).__doc__ or ""
    if name not in {"Alignment", "Certificate", "LayerAlignment", "Neighbors", "Score", "Stats"}:
        for part in ("Example", "Raises" if name not in {"doctor", "InfoNCE", "NTXent", "SigmoidLoss"} else ""):
            assert part in text, f"{name} has no {part}"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/losses.md", "docs/many-gpus.md", "docs/alignment.md", "docs/information.md"]
)
def test_the_blocks_of_a_page_print_what_they_show(page: str, tmp_path: Path) -> None:
    """Run all Python blocks of the page in order, in one process; a comment after a print shows its output."""
    examples = blocks(ROOT / page, "python")
    assert len(examples) >= 2
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(examples)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    printed = run.stdout.split("\n")
    expected = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(examples), re.M)
    assert printed[: len(expected)] == expected


@pytest.mark.parametrize(
    "path", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "csrc/README.md", "kernels/README.md"]
)
def test_links_inside_the_repository_exist(path: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / path).read_text()):
        assert (ROOT / path).parent.joinpath(target).exists(), f"{path} links to {target}"


def test_the_table_of_studies_equals_the_registry() -> None:
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert text.split("<!-- studies_table() -->\n")[1].split("\n<!-- end -->")[0] == studies_table()

"""Imports follow the rows of the table in ``tests/import_graph.py``, without circles."""

import ast
import re
from pathlib import Path

import pytest

from import_graph import (
    BY_NAME_ONLY,
    CONTRACTS,
    LAYERS,
    MAY_REACH_THE_CORE,
    ROOT,
    circles,
    imports,
    module_arrows,
    modules,
    room,
    rows,
)

ARROWS = module_arrows(ROOT)
ROW = rows(LAYERS)


@pytest.mark.parametrize("module", ARROWS)
def test_a_room_imports_only_from_rooms_in_earlier_rows(module: str) -> None:
    for target in ARROWS[module]:
        if room(target) == room(module):
            continue
        if room(target) in BY_NAME_ONLY:
            assert module in MAY_REACH_THE_CORE, (
                f"{module} imports modalign.{target}, which other modules may reach by name only"
            )
        else:
            assert ROW[room(target)] < ROW[room(module)], (
                f"{module} imports modalign.{target}, which is not in an earlier row"
            )


def test_every_room_has_a_row() -> None:
    assert {room(module) for module in ARROWS} <= set(ROW)


def test_there_are_no_circles() -> None:
    assert circles(ARROWS) == []


def test_kernels_and_references_import_only_their_own_room_and_contracts() -> None:
    for name, folder in (("kernels", ROOT / "kernels"), ("reference", ROOT / "python" / "modalign" / "reference")):
        for path in folder.rglob("*.py"):
            others = {target for target in imports(path) if room(target) != name}
            assert {target.rpartition(".")[0] for target in others} <= CONTRACTS, path


def test_below_report_only_doors_name_modules_of_report() -> None:
    for module, path in modules(ROOT).items():
        if ROW[room(module)] < ROW["report"] and module not in ("aliases", "common.doors"):
            assert '"modalign.report' not in path.read_text(encoding="utf-8"), (
                f"{module} names a module of report; use common/doors.py"
            )


def test_below_report_only_progress_imports_rich() -> None:
    for module, path in modules(ROOT).items():
        if ROW[room(module)] < ROW["report"] and module != "common.progress":
            assert not re.search(r"^\s*(from|import) rich", path.read_text(encoding="utf-8"), re.M), module


@pytest.mark.parametrize(
    "face", sorted((ROOT / "python" / "modalign").rglob("__init__.py")), ids=lambda path: path.parent.name
)
def test_the_docstring_of_a_room_names_its_files(face: Path) -> None:
    text = ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))) or ""
    files = [] if face.parent.name == "modalign" else [path.stem for path in face.parent.glob("*.py") if path != face]
    assert not [name for name in files if not re.search(rf"\b{name}\b", text)], f"{face}: files without a line"


@pytest.mark.parametrize("module", ARROWS)
def test_private_names_stay_in_their_room(module: str) -> None:
    """Names that begin with ``_`` are imported inside their room only; what others may use has a public name."""
    private = [name for name in imports(modules(ROOT)[module]) if "._" in name and room(name) != room(module)]
    assert not private

"""The layers of the house: what may import what. ``tests/import_graph.py`` holds the table and reads the imports."""

import pytest

from import_graph import BY_NAME_ONLY, LAYERS, MAY_REACH_THE_CORE, ROOT, circles, imports, module_arrows, room, rows

ARROWS = module_arrows(ROOT)
ROW = rows(LAYERS)


@pytest.mark.parametrize("module", ARROWS)
def test_a_room_imports_only_from_rooms_in_earlier_rows(module: str) -> None:
    for target in ARROWS[module]:
        if room(target) == room(module):
            continue
        if room(target) in BY_NAME_ONLY:
            assert module in MAY_REACH_THE_CORE, f"{module} imports modalign.{target}, which is reached by name only"
        else:
            assert ROW[room(target)] < ROW[room(module)], f"{module} imports modalign.{target}, which is not below it"


def test_every_room_has_a_row() -> None:
    assert {room(module) for module in ARROWS} <= set(ROW)


def test_there_are_no_circles() -> None:
    assert circles(ARROWS) == [["information.batch", "information.estimate"]]


def test_kernels_import_torch_and_triton_alone() -> None:
    for path in (ROOT / "kernels").rglob("*.py"):
        assert {room(name) for name in imports(path)} <= {"kernels"}, path


def test_references_import_torch_alone() -> None:
    for path in (ROOT / "python" / "modalign" / "reference").rglob("*.py"):
        assert {room(name) for name in imports(path)} <= {"reference"}, path

"""The import graph of the package: rooms, imports between rooms, imports in the wrong direction, and circles.

Run ``python tests/import_graph.py [CHECKOUT]`` to print it for this checkout or another one. Imports are read from the
source, so that imports inside functions are included. ``tests/test_layers.py`` checks the package against the table.

A *room* is a folder or module directly in ``python/modalign``. An *arrow* leads from an importing module or room to
the imported one, and *climbs* if the imported room is not in an earlier row of the table.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A room imports only from rooms in earlier rows.
LAYERS = [
    {"common"},
    {"aliases"},
    {"files", "ops", "information"},
    {"distributed"},
    {"losses", "neighbors", "data", "encoders", "diagnosis", "reference", "kernels"},
    {"metrics"},
    {"alignment"},
    {"experiments"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
]
# Modules import these only by "module:function" names in tables of implementations; MAY_REACH_THE_CORE are exceptions.
BY_NAME_ONLY = {"reference", "kernels", "_core", "_cuda"}
MAY_REACH_THE_CORE = {"ops._cpp", "ops._cuda", "diagnosis", "common.provenance"}
# Operators pass these types to their implementations, which import nothing else from the package.
CONTRACTS = {"ops.knn_tables", "ops.loss_tables"}


def modules(root: Path) -> dict[str, Path]:
    """Map the dotted name of every module in ``modalign`` to its file; the package itself has the name ``__init__``."""
    package = root / "python" / "modalign"
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names, without ``modalign``, of everything that a file imports from the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.removeprefix("modalign.") for name in node.names if name.name.startswith("modalign."))
            if any(name.name == "modalign" for name in node.names):
                yield "__init__"
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative import; write the full name")
            if node.module == "modalign":
                yield from (name.name for name in node.names)
            elif node.module and node.module.startswith("modalign."):
                yield from (f"{node.module.removeprefix('modalign.')}.{name.name}" for name in node.names)


def module_arrows(root: Path) -> dict[str, set[str]]:
    """Map every module to the modules that it imports; other imported names count as the module that defines them."""
    names = modules(root)
    arrows: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = set()
        for target in imports(path):
            module = target
            while module not in names and "." in module:
                module = module.rpartition(".")[0]
            targets.add(module if module in names or module in BY_NAME_ONLY else "__init__")
        arrows[name] = targets - {name}
    return arrows


def room(name: str) -> str:
    """Return the top-level folder or module that holds ``name``."""
    return name.split(".", maxsplit=1)[0]


def room_arrows(arrows: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return the pairs (importing room, imported room)."""
    return {(room(a), room(b)) for a, targets in arrows.items() for b in targets if room(a) != room(b)}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(arrows.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            start = stack.index(node)
            component = stack[start:]
            del stack[start:]
            if len(component) > 1:
                components.append(sorted(component))

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return components


def rows(layers: Iterable[set[str]]) -> dict[str, int]:
    """Map each room to the number of its row, from 0."""
    return {name: row for row, names in enumerate(layers) for name in names}


def declared_layers(root: Path) -> list[set[str]]:
    """Read ``LAYERS`` from the source of a checkout, whose table may differ from the one above."""
    for path in (root / "tests" / "import_graph.py", root / "tests" / "test_layers.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else ():
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS":
                layers: list[set[str]] = ast.literal_eval(node.value)
                return layers
    raise ValueError(f"{root}: no table LAYERS in tests/import_graph.py or tests/test_layers.py")


def sizes_of(path: Path) -> tuple[int, tuple[int, str]]:
    """Return the lines of a file, and the length and name of its longest function, docstrings left out."""
    text = path.read_text(encoding="utf-8")
    lengths = [(0, "none")]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            words = 0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1
            lengths.append(((node.end_lineno or 0) - node.lineno + 1 - words, node.name))
    return len(text.splitlines()), max(lengths)


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    arrows = module_arrows(root)
    between = room_arrows(arrows)
    row = rows(declared_layers(root))
    climbing = sorted((a, b) for a, b in between if b not in BY_NAME_ONLY and row.get(b, -1) >= row.get(a, 99))
    inside = [names for names in circles(arrows) if len({room(name) for name in names}) == 1]
    across = [names for names in circles(arrows) if len({room(name) for name in names}) > 1]
    names = {room(name) for name in arrows}
    files = modules(root)
    print(f"rooms {len(names)}, modules {len(arrows)}, rows {len(set(row.values()))}, arrows {len(between)}")
    print(f"climbing arrows {len(climbing)}: {', '.join(f'{a} -> {b}' for a, b in climbing) or 'none'}")
    print(f"circles inside a room {len(inside)}: {inside or 'none'}")
    print(f"circles across rooms {len(across)}: {across or 'none'}")
    for name in sorted(names, key=lambda name: (row.get(name, -1), name)):
        targets = sorted(b for a, b in between if a == name)
        sizes = [size for module, path in files.items() if room(module) == name for size in [sizes_of(path)]]
        lines, (longest, function) = (
            sum(size[0] for size in sizes),
            max((size[1] for size in sizes), default=(0, "none")),
        )
        print(
            f"  {row.get(name, '-')} {name}: {lines} lines, longest function {function} ({longest}); "
            f"imports {', '.join(targets) or 'nothing'}"
        )


if __name__ == "__main__":
    main()

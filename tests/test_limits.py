"""Limits of size that keep the code readable: of modules, of functions, and of calls with positional arguments."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from import_graph import ROOT

FILES = sorted(path for room in ("python", "kernels", "benchmarks", "examples") for path in (ROOT / room).rglob("*.py"))
FILES = [path for path in FILES if "modalign/kernels" not in path.as_posix()]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
# Triton's functions run on the GPU, and torch.library takes no dataclass in a schema or a fake
EXEMPT = ("jit", "custom_op", "register_fake", "register_kernel")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_exempt(function: ast.FunctionDef) -> bool:
    return any(name in ast.unparse(decorator) for decorator in function.decorator_list for name in EXEMPT)


def lines_of_code(function: ast.FunctionDef) -> int:
    """Count the lines of a function, its signature included and its docstring left out."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    end = function.end_lineno or function.lineno
    return end - function.lineno + 1 - (0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1)


OURS = {function.name for tree in TREES.values() for function in functions(tree) if not is_exempt(function)}
OURS |= {node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
OURS -= {"Table", "launch"}  # Rich's tables, and launches of kernels
OURS -= {function.name for tree in TREES.values() for function in functions(tree) if is_exempt(function)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_and_its_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    long = {
        function.name: lines_of_code(function)
        for function in functions(TREES[path])
        if lines_of_code(function) > 60 and not is_exempt(function)
    }
    assert not long


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_calls_of_our_functions_name_their_arguments_beyond_the_fourth(path: Path) -> None:
    crowded = [
        f"line {node.lineno}: {ast.unparse(node.func)} has {len(node.args)} positional arguments"
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in OURS
        and len(node.args) > 4
    ]
    assert not crowded

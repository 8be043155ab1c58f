"""Flags of the compiler that change floating-point arithmetic do not reach the core."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAST = ["-ffast-math", "-Ofast", "-ffast-math -Ofast"]


def options(name: str) -> list[str]:
    """Return the options that CMake adds after those of the user."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    (standard,) = re.findall(r"set\(STANDARD_ARITHMETIC ([^)]*)\)", text)
    (added,) = re.findall(rf"{name}\((.*\$\{{STANDARD_ARITHMETIC\}})\)", text)
    return added.replace("${STANDARD_ARITHMETIC}", standard).split()


def compile_header(*flags: str) -> subprocess.CompletedProcess[str]:
    command = ["g++", "-std=c++20", "-x", "c++", "-fsyntax-only", *flags, ROOT / "csrc/cpu/shared/floating_point.hpp"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("fast", FAST)
def test_the_core_is_compiled_in_standard_arithmetic(fast: str) -> None:
    refused = compile_header(*fast.split())
    assert refused.returncode != 0
    assert "modalign needs IEEE 754 arithmetic: remove -ffast-math" in refused.stderr
    taken = compile_header(*fast.split(), *options("add_compile_options"), "-O3")
    assert taken.returncode == 0, taken.stderr


@pytest.mark.parametrize("fast", FAST)
def test_the_core_does_not_make_its_process_flush_subnormal_numbers(fast: str) -> None:
    """With -ffast-math the compiler links crtfastmath.o, which sets the mode when the core is loaded."""

    def linked(*flags: str) -> str:
        command = ["g++", "-###", "-shared", *fast.split(), *flags, "x.o", "-o", "x.so"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    assert "crtfastmath" in linked()
    assert "crtfastmath" not in linked(*options("add_link_options"))

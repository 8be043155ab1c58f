"""Benchmarks check their answers; this checks that they can fail, and that a record says where it was made."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import cases, compare  # noqa: E402


def test_rivals_agree_with_modalign() -> None:
    for case in [cases.info_nce_cases()[0], cases.info_nce_cases()[-1]]:
        inputs = [tensor[..., :40, :] for tensor in case.make()]
        ours = case.rivals["modalign"](*inputs)
        for name, rival in case.rivals.items():
            assert case.agree(rival(*inputs), ours), name


def test_a_wrong_answer_is_not_timed() -> None:
    case = dataclasses.replace(cases.knn_cases()[0], make=lambda: (torch.randn(100, 4),))
    wrong = dataclasses.replace(
        case, rivals=case.rivals | {"wrong": lambda x: torch.zeros(len(x), 10, dtype=torch.int64)}
    )
    with pytest.raises(SystemExit, match="wrong and modalign disagree"):
        compare.measure(wrong, 0.01)


def test_a_record_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(cases.info_nce_cases()[0], make=lambda: tuple(torch.randn(2, 64, 8).unbind()))
    monkeypatch.setattr(compare, "CASES", {"info_nce": lambda: [small]})
    monkeypatch.setattr(
        sys, "argv", ["compare", "all", "--budget", "0.01", "--even-if-loaded", "--out", str(tmp_path / "r.json")]
    )
    compare.main()
    record = json.loads((tmp_path / "r.json").read_text())
    assert {"provenance", "load", "gemm_rate", "suites"} <= record.keys()
    row = record["suites"]["info_nce"][0]
    assert row["ratio"]["modalign"] == 1
    assert row["rounds"] >= 3

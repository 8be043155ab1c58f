"""Benchmarks check their answers; this checks that they can fail, and that a record says where it was made."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import cases, compare, gpu, gpu_cases, knn_cases  # noqa: E402


def test_rivals_agree_with_modalign() -> None:
    for case in [cases.info_nce_cases()[0], cases.info_nce_cases()[-1]]:
        inputs = [tensor[..., :40, :] for tensor in case.make()]
        ours = case.rivals["modalign"](*inputs)
        for name, rival in case.rivals.items():
            assert case.agree(rival(*inputs), ours), name


def small_graph() -> cases.Case:
    def rows() -> tuple[torch.Tensor, None]:
        return torch.nn.functional.normalize(knn_cases._normal(300, 4)), None

    return dataclasses.replace(knn_cases.knn_cases()[0], make=rows)


def test_a_wrong_answer_is_not_timed() -> None:
    case = small_graph()
    wrong = knn_cases.Graph(torch.arange(3000).reshape(300, 10) % 300)
    with pytest.raises(SystemExit, match="wrong and modalign disagree"):
        compare.measure(dataclasses.replace(case, rivals=case.rivals | {"wrong": lambda x, y: wrong}), 0.01)
    with pytest.raises(SystemExit, match="modalign's answer is wrong"):
        compare.measure(dataclasses.replace(case, rivals={"modalign": lambda x, y: wrong}), 0.01)


def test_a_repeated_neighbour_is_not_exact() -> None:
    case = small_graph()
    x, y = case.make()
    answer = case.rivals["modalign"](x, y)
    assert case.right(x, y, answer)
    assert not case.right(x, y, knn_cases.Graph(answer.indices[:, :1].repeat(1, 10)))


def test_a_first_call_stays_out_of_a_single_round() -> None:
    rows = []
    case = small_graph()

    def rival(x: torch.Tensor, y: None) -> knn_cases.Graph:
        rows.append(len(x))
        return case.rivals["modalign"](x, y)

    compare.measure(dataclasses.replace(case, rivals=case.rivals | {"rival": rival}, rounds=1), 0.01)
    assert rows == [128, 300]


def test_an_approximate_rival_may_miss_neighbours() -> None:
    found, exact = torch.tensor([[1, -1, -1], [0, 0, 2]]), torch.tensor([[1, 2, 3], [0, 2, 3]])
    assert knn_cases._overlap(found, exact) == 0.5


def test_an_approximate_rival_has_its_recall_beside_its_time() -> None:
    case = small_graph()

    def poor(x: torch.Tensor, y: None) -> knn_cases.Graph:
        indices = case.rivals["modalign"](x, y).indices.clone()
        indices[:, -1] = torch.arange(len(x))
        return knn_cases.Graph(indices, exact=False)

    row = compare.measure(dataclasses.replace(case, rivals=case.rivals | {"poor": poor}, rounds=1), 0.01)
    assert row["recall"]["poor"] == pytest.approx(0.9)
    assert row["rounds"] == 1
    assert "torch mm + topk" not in row["recall"]


@pytest.mark.parametrize("rival", ["hnswlib", "faiss flat"])
def test_rivals_drop_the_row_itself(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip((knn_cases.EXACT | knn_cases.APPROXIMATE)[rival])
    monkeypatch.setattr(knn_cases, "THREADS", 1)
    x = torch.nn.functional.normalize(knn_cases.clustered(400, 8))
    indices = torch.as_tensor(knn_cases.SEARCHES[rival](x, None, 5).indices)
    assert indices.shape == (400, 5)
    assert not (indices == torch.arange(400)[:, None]).any()


def test_a_record_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(cases.info_nce_cases()[0], make=lambda: tuple(torch.randn(2, 64, 8).unbind()))
    monkeypatch.setattr(compare, "CASES", {"info_nce": lambda: [small]})
    monkeypatch.setattr(
        sys, "argv", ["compare", "all", "--budget", "0.01", "--even-if-loaded", "--out", str(tmp_path / "r.json")]
    )
    compare.main()
    record = json.loads((tmp_path / "r.json").read_text())
    assert {"provenance", "load", "gemm_rates", "suites"} <= record.keys()
    row = record["suites"]["info_nce"][0]
    assert row["ratio"]["modalign"] == 1
    assert row["rounds"] >= 3


@pytest.mark.parametrize(
    "case", [*gpu_cases.loss_cases(small=True)[:1], *gpu_cases.knn_cases(small=True)], ids=lambda case: case.name
)
def test_a_wrong_peer_on_a_gpu_is_named_and_not_timed(case: gpu_cases.Case) -> None:
    def off(*inputs: torch.Tensor) -> object:
        answer = case.rivals["modalign"](*inputs)
        return (answer[0], answer[1], -answer[2]) if isinstance(answer, tuple) else (answer + 1) % len(inputs[0])

    def broken(*inputs: torch.Tensor) -> object:
        raise RuntimeError("no kernel image")

    honest = {name: rival for name, rival in case.rivals.items() if name in ("modalign", "torch mm + topk")}
    changed = dataclasses.replace(case, rivals=honest | {"off": off, "broken": broken})
    row = gpu.measure(changed, torch.device("cpu"), torch.float32, rounds=2)
    assert set(row["milliseconds"]) == set(honest)
    assert "RuntimeError: no kernel image" in row["not_timed"]["broken"]
    assert "ours" in row["not_timed"]["off"] or "true ones" in row["not_timed"]["off"]


def test_our_own_wrong_answer_on_a_gpu_ends_the_run() -> None:
    case = gpu_cases.knn_cases(small=True)[0]
    wrong = dataclasses.replace(case, rivals={"modalign": lambda x: case.rivals["torch mm + topk"](x).flip(1)})
    with pytest.raises(SystemExit, match="modalign is wrong, 64 of 64 rows are not those of float64"):
        gpu.measure(wrong, torch.device("cpu"), torch.float32, rounds=2)

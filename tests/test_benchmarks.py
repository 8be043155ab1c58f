"""Benchmarks refuse wrong results, and their records are complete."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import before_after, cases, compare, knn_cases, speed, study_record  # noqa: E402
from benchmarks.gpu import graphs, losses  # noqa: E402
from benchmarks.gpu import run as gpu  # noqa: E402
from benchmarks.gpu.cases import Case as GpuCase  # noqa: E402
from benchmarks.gpu.cases import one_rank  # noqa: E402
from benchmarks.load import require_idle_machine  # noqa: E402

import modalign  # noqa: E402


def test_other_libraries_agree_with_modalign() -> None:
    for case in [cases.info_nce_cases()[0], cases.info_nce_cases()[-1]]:
        inputs = [tensor[..., :40, :] for tensor in case.make()]
        ours = case.rivals["modalign"](*inputs)
        for name, rival in case.rivals.items():
            assert case.agree(rival(*inputs), ours), name


@pytest.fixture
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine's rate come from small products: a large one of int8 takes a minute."""
    monkeypatch.setattr(compare, "GEMM_SIZE", 64)


def small_graph() -> cases.Case:
    def rows() -> tuple[torch.Tensor, None]:
        return torch.nn.functional.normalize(knn_cases._normal(300, 4)), None

    return dataclasses.replace(knn_cases.knn_cases()[0], make=rows)


def test_a_wrong_result_is_not_timed() -> None:
    case = small_graph()
    wrong = knn_cases.Graph(torch.arange(3000).reshape(300, 10) % 300)
    with pytest.raises(SystemExit, match="wrong and modalign disagree"):
        compare.measure(dataclasses.replace(case, rivals=case.rivals | {"wrong": lambda x, y: wrong}), 0.01)
    with pytest.raises(SystemExit, match="modalign's result is wrong"):
        compare.measure(dataclasses.replace(case, rivals={"modalign": lambda x, y: wrong}), 0.01)


def test_a_repeated_neighbour_is_not_exact() -> None:
    case = small_graph()
    x, y = case.make()
    answer = case.rivals["modalign"](x, y)
    assert case.right(x, y, answer)
    assert not case.right(x, y, knn_cases.Graph(answer.indices[:, :1].repeat(1, 10)))


def test_the_first_call_is_not_part_of_a_single_round() -> None:
    rows = []
    case = small_graph()

    def rival(x: torch.Tensor, y: None) -> knn_cases.Graph:
        rows.append(len(x))
        return case.rivals["modalign"](x, y)

    compare.measure(dataclasses.replace(case, rivals=case.rivals | {"rival": rival}, rounds=1), 0.01)
    assert rows == [128, 300]


def test_the_recall_counts_missed_neighbours() -> None:
    approximate, exact = torch.tensor([[1, -1, -1], [0, 0, 2]]), torch.tensor([[1, 2, 3], [0, 2, 3]])
    assert knn_cases._overlap(approximate, exact) == 0.5


def test_the_recall_of_an_approximate_library_is_recorded() -> None:
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
def test_other_libraries_exclude_the_row_itself(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip((knn_cases.EXACT | knn_cases.APPROXIMATE)[rival])
    monkeypatch.setattr(knn_cases, "THREADS", 1)
    x = torch.nn.functional.normalize(knn_cases.clustered(400, 8))
    indices = torch.as_tensor(knn_cases.SEARCHES[rival](x, None, 5).indices)
    assert indices.shape == (400, 5)
    assert not (indices == torch.arange(400)[:, None]).any()


@pytest.mark.usefixtures("small_matrices")
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


def test_the_commands_of_records_name_places_in_the_repository() -> None:
    records = {path.name: json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    commands = {name: record.get("provenance", {}).get("command", "") for name, record in records.items()}
    assert {name: command for name, command in commands.items() if " /" in command} == {}


def test_the_speed_page_shows_the_records() -> None:
    assert speed.PAGE.read_text(encoding="utf-8") == speed.page(list(speed.records())), (
        "records are newer than the page: python -m benchmarks.speed --write"
    )


@pytest.mark.usefixtures("small_matrices")
def test_the_speed_page_uses_the_newest_complete_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(cases.info_nce_cases()[0], make=lambda: tuple(torch.randn(2, 64, 8).unbind()))
    monkeypatch.setattr(compare, "CASES", {"info_nce": lambda: [small]})
    monkeypatch.setattr(gpu, "SUITES", {"info_nce": (lambda small: [GPU_CASES[0]], torch.float32)})
    for module, arguments in (
        (compare, ["info_nce", "--budget", "0.01", "--even-if-loaded", "--out", "whole.json"]),
        (compare, ["info_nce", "--budget", "0.01", "--even-if-loaded", "--only", "x", "--out", "part.json"]),
        (gpu, ["--device", "cpu", "--small", "--rounds", "2", "--out", "gpu.json"]),
    ):
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments[:-1], str(tmp_path / arguments[-1])])
        module.main()
    on_gpu = json.loads((tmp_path / "gpu.json").read_text())
    on_gpu["provenance"]["machine"]["gpus"] = ["a GPU"]
    (tmp_path / "gpu.json").write_text(json.dumps(on_gpu))
    records = list(speed.records(tmp_path))
    assert [record["name"] for _, record in records if record["name"] != "gpu.json"] == ["whole.json"]
    assert len(records) == 2
    text = speed.page(records)
    assert small.name in text
    assert GPU_CASES[0].name in text
    assert "naive torch **" in text
    assert speed.picture(records).png.startswith(b"\x89PNG")


@pytest.fixture
def rank() -> Iterator[None]:
    """Let this process be the only rank, as the benchmark of a GPU does."""
    with one_rank(torch.device("cpu")):
        yield


GPU_CASES = [*losses.loss_cases(small=True), *graphs.knn_cases(small=True)]


def on_cpu(case: GpuCase, **options: object) -> dict:
    return gpu.measure(case, torch.device("cpu"), torch.float32, gpu.Limits(rounds=2, **options))


@pytest.mark.usefixtures("rank")
@pytest.mark.parametrize("case", GPU_CASES, ids=lambda case: case.name)
def test_a_wrong_library_on_a_gpu_is_recorded_and_not_timed(case: GpuCase) -> None:
    def off(*inputs: torch.Tensor) -> object:
        answer = case.rivals["modalign"](*inputs)
        return (answer[0], answer[1], -answer[2]) if isinstance(answer, tuple) else (answer + 1) % len(inputs[0])

    def broken(*inputs: torch.Tensor) -> object:
        raise RuntimeError("no kernel image")

    honest = {name: rival for name, rival in case.rivals.items() if name != "torch.compile"}
    row = on_cpu(dataclasses.replace(case, rivals=honest | {"off": off, "broken": broken}))
    assert set(row["milliseconds"]) == set(honest)
    assert "RuntimeError: no kernel image" in row["not_timed"]["broken"]
    assert "ours" in row["not_timed"]["off"] or "true ones" in row["not_timed"]["off"]


@pytest.mark.usefixtures("rank")
@pytest.mark.parametrize("case", GPU_CASES, ids=lambda case: case.name)
def test_a_wrong_result_of_modalign_on_a_gpu_is_a_failed_row(case: GpuCase) -> None:
    def wrong(*inputs: torch.Tensor) -> object:
        answer = case.rivals["modalign"](*inputs)
        return (answer[0], answer[1] * 1.05, answer[2]) if isinstance(answer, tuple) else answer.flip(1)

    row = on_cpu(dataclasses.replace(case, rivals=case.rivals | {"modalign": wrong}))
    assert row.keys() == {"case", "failed"}
    assert "64 of 64 rows are not those of float64" in row["failed"] or "off that of the definition" in row["failed"]


@pytest.mark.parametrize("loss", [modalign.info_nce, modalign.sigmoid_loss], ids=lambda loss: loss.__name__)
def test_a_gradient_without_negatives_is_detected(loss: object) -> None:
    case = GPU_CASES[0 if loss is modalign.info_nce else 2]
    x, y = case.make(torch.device("cpu"))
    value, *_ = answer = case.rivals["modalign"](x, y)
    assert case.find_error((x, y), answer) is None
    leaves = [table.clone().requires_grad_() for table in (x, y)]
    pairs = torch.nn.functional.cosine_similarity(*leaves).mean() / losses.TEMPERATURE
    assert "the gradient of x is" in str(case.find_error((x, y), (value, *torch.autograd.grad(-pairs, leaves))))


def test_a_library_that_fails_later_does_not_affect_others() -> None:
    case = GPU_CASES[-1]
    calls = []

    def tired(x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        if len(calls) > 2:
            raise RuntimeError("no memory left")
        return case.rivals["torch mm + topk"](x, queries)

    row = on_cpu(dataclasses.replace(case, rivals=case.rivals | {"tired": tired}))
    assert row["not_timed"] == {"tired": "RuntimeError: no memory left"}
    assert row["milliseconds"].keys() == case.rivals.keys()


def test_a_library_that_would_take_too_long_is_skipped() -> None:
    case = GPU_CASES[-1]
    rates: dict[str, float] = {}
    assert "torch mm + topk" in on_cpu(case, rates=rates)["milliseconds"]
    row = on_cpu(case, rates=rates | {"torch mm + topk": case.operations / 90}, longest=60)
    assert row["not_timed"] == {"torch mm + topk": "a step would take about 90 s"}


def test_an_interrupted_gpu_record_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that fails does not affect others, and cases that a record has are not measured again."""
    first, second = graphs.knn_cases(small=True)

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    shared = {"torch mm + topk": second.rivals["torch mm + topk"]}
    cases = [
        dataclasses.replace(first, rivals=shared | {"modalign": broken}),
        dataclasses.replace(second, rivals=shared | {"modalign": second.rivals["modalign"]}),
    ]
    monkeypatch.setattr(gpu, "SUITES", {"knn": (lambda small: cases, torch.float32)})
    out = tmp_path / "r.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--small", "--out", str(out)])
    with pytest.raises(SystemExit, match=f"failed: {first.name}"):
        gpu.main()
    rows = {row["case"]: row for row in json.loads(out.read_text())["suites"]["knn"]}
    assert rows[first.name]["failed"] == "RuntimeError: out of memory"
    assert "milliseconds" in rows[second.name]
    monkeypatch.setattr(gpu, "measure", None)
    with pytest.raises(SystemExit, match=f"failed: {first.name}"):
        gpu.main()


def test_a_wrong_kernel_of_modalign_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = graphs.knn_cases(small=True)[1]
    other = {"modalign, other backend": lambda x, q: case.rivals["modalign"](x, q).flip(1)}
    wrong = dataclasses.replace(case, rivals=case.rivals | other)
    monkeypatch.setattr(gpu, "SUITES", {"knn": (lambda small: [wrong], torch.float32)})
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--small", "--longest", "0"])
    with pytest.raises(SystemExit, match="failed: 100 queries"):
        gpu.main()


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("broken", ["nothing", "pytest", "memeff", "CUDA"])
def test_make_gpu_continues_after_a_failure(offline: bool, broken: str, tmp_path: Path) -> None:
    """Run benchmarks/gpu/gpu.sh with a fake python that records its arguments and fails for one of them."""

    def program(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    log = tmp_path / "commands"
    python = program("python", f'echo "$*" >>{log}\ncase "$*" in *{broken}*) exit 1;; -c*capability*) echo 90;; esac')
    program("nvidia-smi", "echo A big card")
    program("nvcc", "exit 0")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RESULTS": str(tmp_path / "results")}
    environment |= {"OFFLINE": "1", "WHEELS": "wheels"} if offline else {}
    run = subprocess.run(
        [ROOT / "benchmarks" / "gpu" / "gpu.sh", python], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == (1 if broken in ("pytest", "CUDA") else 0), run.stderr
    commands = log.read_text().splitlines()
    kinds = [next(kind for kind in ("benchmarks.gpu", "pytest", "pip", "-c") if kind in line) for line in commands]
    assert kinds == [*4 * ["pip"], "-c", "pip", "pytest", "benchmarks.gpu"]
    assert all(("--no-index" in line) == offline for line in commands if "pip" in line)
    assert "CMAKE_CUDA_ARCHITECTURES=90a-real" in commands[5]
    assert f"--out {tmp_path}/results/A-big-card-" in commands[-1]


def test_a_version_compared_with_itself_gives_the_same_bits() -> None:
    python = Path(sys.executable)
    ratios = before_after.run_round(python, python, small=True)
    assert len(ratios) == 3
    assert all(ratio > 0 for ratio in ratios.values())
    assert 1 <= before_after.upper_bound([1.0, 1.1, 1.2]) <= 1.2


def test_versions_with_different_bits_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_after.Version, "call", lambda version, operation: (str(id(version)), 1.0))
    python = Path(sys.executable)
    with pytest.raises(SystemExit, match=r"info_nce, forward and backward: .* give different bits"):
        before_after.run_round(python, python, small=True)


def test_a_version_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module named modalign >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(SystemExit, match=f"the package of {broken} could not be measured:\nno module named modalign"):
        before_after.Version(broken, small=True)


def test_a_loaded_machine_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (100.0, 0.0, 0.0))
    with pytest.raises(SystemExit, match=r"load 100\.0 on \d+ cores: a ratio of times measured now means nothing"):
        require_idle_machine(even_if_loaded=False)
    assert require_idle_machine(even_if_loaded=True) == 100.0


def test_the_record_of_a_study_has_its_verdicts_and_no_characteristics(tmp_path: Path) -> None:
    claim = {
        "source": "a",
        "text": "b",
        "rule": "sign",
        "paper": None,
        "value": 0.5,
        "verdict": "undecided",
        "key": "x",
    }
    provenance = {"command": "modalign reproduce toy --out toy"}
    content = {"settings.json": {"settings": {"study": "toy"}, "provenance": provenance}, "claims.json": [claim] * 2}
    for name, value in content.items():
        (tmp_path / name).write_text(json.dumps(value))
    record = study_record.record_of(tmp_path, seconds=61.4)
    assert (record["command"], record["cpu_seconds"]) == (provenance["command"], 61)
    assert record["verdicts"] == {"claims": 2, "reproduced": 0, "partly": 0, "not": 0, "undecided": 2}
    assert "key" not in record["claims"][0]

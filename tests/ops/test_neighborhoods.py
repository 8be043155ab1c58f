"""neighborhood_scores and relabelled_overlap agree with plain Python, to the same bits on any number of threads."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from modalign.ops.neighborhoods import SCORES, neighborhood_scores, relabelled_overlap

pytestmark = pytest.mark.usefixtures("nan_filled_memory")

BACKENDS = ["cpp", "reference"]
# k beyond 64 and 128: the edit distance goes from word to word
SHAPES = [(2, 1), (6, 1), (7, 6), (30, 10), (70, 63), (70, 64), (70, 65), (150, 128), (150, 149), (600, 4)]


def related(n: int, k: int) -> tuple[Tensor, Tensor]:
    """Return two graphs whose lists are equal, disjoint if possible, a few swaps or shifts apart, or unrelated."""
    others = torch.stack([(i + 1 + torch.randperm(n - 1)) % n for i in range(n)])
    a, b = others[:, :k].clone(), others[:, :k].clone()
    for i in range(n):
        if i % 5 == 1:
            b[i] = others[i, -k:]
        elif i % 5 == 2:
            one, two = torch.randint(0, k, (2,)).tolist()
            b[i, one], b[i, two] = a[i, two], a[i, one]
        elif i % 5 == 3:
            b[i] = torch.roll(others[i], int(torch.randint(-3, 4, ())))[:k]
        elif i % 5 == 4:
            b[i] = others[i][torch.randperm(n - 1)[:k]]
    return a, b


def levenshtein(p: list[int], q: list[int]) -> int:
    row = list(range(len(q) + 1))
    for i, one in enumerate(p, 1):
        before, row[0] = row[0], i
        for j, two in enumerate(q, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != two))
    return row[-1]


def longest_common(p: list[int], q: list[int]) -> int:
    row = [0] * (len(q) + 1)
    for one in p:
        before = 0
        for j, two in enumerate(q, 1):
            before, row[j] = row[j], before + 1 if one == two else max(row[j], row[j - 1])
    return row[-1]


def ranks(p: list[int], q: list[int]) -> Fraction:
    common = set(p) & set(q)
    sum_ = Fraction(0)
    for j in common:
        r, s = p.index(j) + 1, q.index(j) + 1
        sum_ += Fraction(2, (1 + abs(r - s)) * (r + s))
    return sum_ / sum(Fraction(1, rank) for rank in range(1, len(common) + 1)) if common else Fraction(0)


PAIRS: dict[str, Callable[[list[int], list[int]], Fraction]] = {
    "mutual_knn": lambda p, q: Fraction(len({*p} & {*q}), len(p)),
    "jaccard_knn": lambda p, q: Fraction(len({*p} & {*q}), len({*p} | {*q})),
    "rank_similarity": ranks,
    "lcs_knn": lambda p, q: Fraction(longest_common(p, q), len(p)),
    "edit_distance_knn": lambda p, q: 1 - Fraction(levenshtein(p, q), len(p)),
}


def defined(name: str, a: list[list[int]], b: list[list[int]]) -> list[float]:
    if name == "cycle_knn":
        return [float(any(i in a[j] for j in row)) for i, row in enumerate(b)]
    if name == "reciprocity":
        return [sum(i in a[j] for j in row) / len(row) for i, row in enumerate(b)]
    return [float(PAIRS[name](p, q)) for p, q in zip(a, b, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_those_of_the_definition(name: str, n: int, k: int, backend: str) -> None:
    a, b = related(n, k)
    # a sum of at most k positive terms and one quotient
    expected = torch.tensor(defined(name, a.tolist(), b.tolist()), dtype=torch.float64)
    torch.testing.assert_close(neighborhood_scores(a, b, name, backend), expected, rtol=1e-15 * k + 1e-15, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_list_and_itself_score_one_and_disjoint_lists_zero(name: str, backend: str) -> None:
    a = related(20, 7)[0]
    assert neighborhood_scores(a, a.clone(), name, backend).tolist() == pytest.approx([1.0] * 20, abs=1e-15)
    assert neighborhood_scores(a, a + 20, name, backend).tolist() == [0.0] * 20


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PAIRS)
def test_ids_beyond_32_bits(name: str, backend: str) -> None:
    a, b = torch.tensor([[2**40, 1, 2**33]]), torch.tensor([[2**33, 2**40 + 1, 1]])
    expected = defined(name, a.tolist(), b.tolist())
    assert neighborhood_scores(a, b, name, backend).tolist() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "k"), [(2, 1), (9, 8), (40, 7), (700, 3)])
def test_relabelled_overlap_counts_edges(n: int, k: int, backend: str) -> None:
    a, b = related(n, k)
    relabellings = torch.stack([torch.arange(n), torch.randperm(n), torch.randperm(n)])
    edges = {(i, j) for i, row in enumerate(b.tolist()) for j in row}
    expected = [sum((s[i], s[j]) in edges for i, row in enumerate(a.tolist()) for j in row) for s in
                relabellings.tolist()]  # fmt: skip
    assert relabelled_overlap(a, b, relabellings, backend).tolist() == expected
    one = relabelled_overlap(a, b, relabellings[1], backend)
    assert one.shape == ()
    assert int(one) == expected[1]
    assert expected[0] == sum(len({*p} & {*q}) for p, q in zip(a.tolist(), b.tolist(), strict=True))


def test_layout_is_of_no_matter() -> None:
    a, b = related(30, 6)
    s = torch.stack([torch.randperm(30), torch.randperm(30)])
    for name in SCORES:
        expected = neighborhood_scores(a, b, name, "cpp")
        assert torch.equal(neighborhood_scores(a.T.contiguous().T, b.T.contiguous().T, name, "cpp"), expected)
    expected = relabelled_overlap(a, b, s, "cpp")
    turned = (table.T.contiguous().T for table in (a, b, s))
    assert torch.equal(relabelled_overlap(*turned, "cpp"), expected)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    a, b = related(3000, 12)
    s = torch.stack([torch.randperm(3000) for _ in range(5)])

    def answers() -> list[Tensor]:
        return [*(neighborhood_scores(a, b, name, "cpp") for name in SCORES), relabelled_overlap(a, b, s, "cpp")]

    torch.set_num_threads(1)
    one = answers()
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, answers(), one))


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str) -> None:
    a, b = related(6, 3)
    for name in SCORES:
        torch.library.opcheck(neighborhood_scores, (a, b, name, backend))
    for s in (torch.randperm(6), torch.randperm(6)[None]):
        torch.library.opcheck(relabelled_overlap, (a, b, s, backend))


def test_the_core_refuses_a_name_it_does_not_know() -> None:
    from modalign import _core

    a, scores = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the neighborhood score must be one of mutual_knn, .*, got knn"):
        _core.neighborhood_scores(a.data_ptr(), a.data_ptr(), 1, 1, "knn", scores.data_ptr(), 1)


def test_the_core_computes_every_score() -> None:
    from modalign import _core

    assert sorted(_core.neighborhood_score_names()) == sorted(SCORES)

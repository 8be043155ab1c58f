"""Invalid input raises an error that states what was expected and what was passed; it gives no crash and no NaN."""

import numpy as np
import pytest
import torch

import modalign
from modalign.ops.info_nce import info_nce_forward
from modalign.ops.loss_tables import ForwardOptions, LossTables

X = torch.randn(5, 3)
NAN = X.clone()
NAN[3, 1] = torch.nan


def bad_info_nce() -> dict[str, tuple[type[Exception], str, tuple, dict]]:
    infinite = X.clone()
    infinite[0, 0] = -torch.inf
    return {
        "NaN in x": (ValueError, r"x must be finite, got NaN or inf in 1 rows, .*\[0, 3\]", (NAN, X), {}),
        "NaN in y": (ValueError, r"y must be finite, got NaN or inf in 1 rows", (X, NAN), {}),
        "inf": (ValueError, r"x must be finite", (infinite, X), {"normalize": False}),
        "n mismatch": (ValueError, r"one shape \(\.\.\., n, d\).*got \(5, 3\) and \(4, 3\)", (X, X[:4]), {}),
        "d mismatch": (ValueError, r"got \(5, 3\) and \(5, 2\)", (X, X[:, :2]), {}),
        "one dimension": (ValueError, r"got \(3,\) and \(3,\)", (X[0], X[0]), {}),
        "empty": (ValueError, r"must not be empty, got \(0, 3\)", (X[:0], X[:0]), {}),
        "integers": (TypeError, r"x must be float16.*got torch.int64", (X.long(), X.long()), {}),
        "two dtypes": (TypeError, r"share dtype and device, .* cpu and torch.float64", (X, X.double()), {}),
        "two devices": (TypeError, r"share dtype and device, .* meta", (X, X.to("meta")), {}),
        "an array": (TypeError, r"x must be a torch tensor, got ndarray", (X.numpy(), X), {}),
        "temperature 0": (ValueError, r"temperature must be positive and finite, got 0", (X, X), {"temperature": 0.0}),
        "temperature < 0": (ValueError, r"positive and finite, got -1", (X, X), {"temperature": -1}),
        "temperature NaN": (ValueError, r"positive and finite, got nan", (X, X), {"temperature": float("nan")}),
        "temperature text": (TypeError, r"must be a number or a tensor, got '0.1'", (X, X), {"temperature": "0.1"}),
        "temperature tensor": (ValueError, r"must be positive", (X, X), {"temperature": torch.tensor(-0.5)}),
        "temperature too small": (
            ValueError,
            r"temperature must be at least 1 / 3.4e\+38, got 1e-40",
            (X, X),
            {"temperature": 1e-40},
        ),
        "backend": (ValueError, r"backend must be one of \('auto', .*got None", (X, X), {"backend": None}),
        "smoothing text": (TypeError, r"label_smoothing must be a number, got 'a'", (X, X), {"label_smoothing": "a"}),
        "margin text": (TypeError, r"margin must be a number, got 'a'", (X, X), {"margin": "a"}),
        "NaN in the teacher": (ValueError, r"the teacher's y must be finite", (X, X), {"teacher": (X, NAN, 0.1)}),
        "overflow of negatives": (
            ValueError,
            r"logits overflow torch.float32",
            (X, X),
            {"negatives": (3e38 * X.sign())[:, None], "normalize": False},
        ),
        "temperature shape": (
            ValueError,
            r"broadcast to the leading dimensions \(\), or be \(5,\), .* shape \(2,\)",
            (X, X),
            {"temperature": torch.ones(2)},
        ),
        "reduction": (ValueError, r"one of \('mean', 'sum', 'none'\), got 'avg'", (X, X), {"reduction": "avg"}),
        "overflow": (ValueError, r"logits overflow torch.float32: largest", (1e25 * X, 1e25 * X), {"normalize": False}),
        "direction": (ValueError, r"direction must be one of \('both', .*got 'forth'", (X, X), {"direction": "forth"}),
        "positives": (ValueError, r"positives must be one of .*got 'all'", (X, X), {"positives": "all"}),
        "positives alone": (ValueError, r"positives='out' needs groups", (X, X), {"positives": "out"}),
        "groups' length": (
            ValueError,
            r"groups must be \(5,\), one for each row of x, .*got \(4,\)",
            (X, X),
            {"groups": torch.arange(4)},
        ),
        "groups not integers": (
            TypeError,
            r"groups must be a tensor of int64 or .*got torch.float32",
            (X, X),
            {"groups": torch.ones(5)},
        ),
        "all ignored": (ValueError, r"every row of a problem is ignored", (X, X), {"ignore": torch.ones(5).bool()}),
        "ignore not bool": (
            TypeError,
            r"ignore must be a tensor of bool, got torch.int64",
            (X, X),
            {"ignore": torch.arange(5)},
        ),
        "queue's width": (
            ValueError,
            r"queue must be \(m, 3\) for x \(5, 3\), got \(4, 2\)",
            (X, X),
            {"queue": torch.ones(4, 2)},
        ),
        "queue's dtype": (
            TypeError,
            r"queue must have the dtype and device of x, torch.float32 cpu, got torch.float64",
            (X, X),
            {"queue": X.double()},
        ),
        "NaN in the queue": (ValueError, r"queue must be finite, got NaN", (X, X), {"queue": NAN}),
        "empty queue": (ValueError, r"queue must be", (X, X), {"queue": X[:0]}),
        "negatives' shape": (
            ValueError,
            r"negatives must be \(5, h, 3\) for x \(5, 3\), got \(5, 3\)",
            (X, X),
            {"negatives": X},
        ),
        "NaN in the negatives": (ValueError, r"negatives must be finite", (X, X), {"negatives": NAN[:, None]}),
        "negatives of y": (ValueError, r"direction must not be 'y_to_x'", (X, X), {"queue": X, "direction": "y_to_x"}),
        "negative weights": (
            ValueError,
            r"weights must be finite and not negative",
            (X, X),
            {"weights": -torch.ones(5)},
        ),
        "weights all zero": (ValueError, r"weights of a problem are all zero", (X, X), {"weights": torch.zeros(5)}),
        "weights of text": (TypeError, r"weights must be a tensor of float16 or .*got str", (X, X), {"weights": "w"}),
        "smoothing": (ValueError, r"label_smoothing must be in \[0, 1\), got 1", (X, X), {"label_smoothing": 1}),
        "margin": (ValueError, r"margin must be a finite number or None, got nan", (X, X), {"margin": float("nan")}),
        "margin, smoothing": (
            ValueError,
            r"margin excludes label_smoothing",
            (X, X),
            {"margin": 0.1, "label_smoothing": 0.1},
        ),
        "teacher alone": (TypeError, r"teacher must be \(tx, ty, teacher_temperature\)", (X, X), {"teacher": X}),
        "teacher's rows": (ValueError, r"teacher's x must be \(5, d'\)", (X, X), {"teacher": (X[:4], X[:4], 0.1)}),
        "teacher's widths": (
            ValueError,
            r"teacher's x and y must have one shape",
            (X, X),
            {"teacher": (X, X[:, :2], 0.1)},
        ),
        "teacher's temperature": (
            ValueError,
            r"teacher's temperature must be positive",
            (X, X),
            {"teacher": (X, X, 0.0)},
        ),
        "teacher, queue": (
            ValueError,
            r"teacher excludes negatives, queue",
            (X, X),
            {"teacher": (X, X, 0.1), "queue": X},
        ),
        "workspace": (ValueError, r"workspace must be None or a number of bytes, .*got -1", (X, X), {"workspace": -1}),
        "stats": (ValueError, r"stats must be False, True or 'gradient', got 'all'", (X, X), {"stats": "all"}),
        "stats of each": (
            ValueError,
            r"stats='gradient' needs reduction",
            (X, X),
            {"stats": "gradient", "reduction": "none"},
        ),
    }


@pytest.mark.parametrize("case", bad_info_nce())
def test_info_nce_refuses(case: str) -> None:
    error, message, args, settings = bad_info_nce()[case]
    with pytest.raises(error, match=message):
        modalign.info_nce(*args, **settings)


@pytest.mark.parametrize("loss", [modalign.info_nce, modalign.nt_xent, modalign.sigmoid_loss])
def test_losses_refuse_float64_beside_float32_under_autocast(loss) -> None:
    """Autocast casts only one of the two inputs; a kernel that takes addresses would then read out of bounds."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for pair in ((X, X.double()), (X.double(), X)):
            with pytest.raises(TypeError, match="share dtype and device"):
                loss(*pair)


def test_operators_of_the_core_refuse_mixed_dtypes() -> None:
    rows, scale = X[None], torch.ones(1, 5)
    for tables in ((rows, rows.double(), scale), (rows, None, scale.double()), (rows.double(), None, scale)):
        with pytest.raises(TypeError, match="must share a dtype"):
            info_nce_forward(LossTables(*tables), ForwardOptions(columns=False), "cpp")


def test_the_module_of_info_nce_refuses() -> None:
    for settings in (
        {"temperature": 0},
        {"temperature": -1},
        {"positives": "most"},
        {"reduction": "avg"},
        {"learnable": True, "max_scale": 1},
    ):
        with pytest.raises(ValueError, match=r"InfoNCE: .* got"):
            modalign.InfoNCE(**settings)


@pytest.mark.parametrize("loss", [modalign.nt_xent, modalign.sigmoid_loss])
@pytest.mark.parametrize(
    "case",
    [
        "NaN in x",
        "inf",
        "n mismatch",
        "empty",
        "integers",
        "two dtypes",
        "temperature 0",
        "temperature < 0",
        "temperature tensor",
        "temperature too small",
        "temperature shape",
        "reduction",
        "overflow",
        "backend",
    ],
)
def test_the_other_losses_refuse(loss, case: str) -> None:
    error, _, args, settings = bad_info_nce()[case]
    with pytest.raises(error, match=rf"^{loss.__name__}: "):
        loss(*args, **settings)


def test_sigmoid_loss_refuses() -> None:
    for bias, error in ((float("nan"), ValueError), ("low", ValueError), (torch.ones(2), ValueError)):
        with pytest.raises(error, match="sigmoid_loss: bias must"):
            modalign.sigmoid_loss(X, X, bias=bias)
    with pytest.raises(ValueError, match="bias must be finite"):
        modalign.sigmoid_loss(X, X, bias=torch.tensor(torch.nan))
    with pytest.raises(ValueError, match="one value per problem, got one per anchor"):
        modalign.sigmoid_loss(X, X, temperature=torch.ones(5))


def test_modules_refuse_invalid_settings() -> None:
    for module, settings in (
        (modalign.NTXent, {"temperature": 0}),
        (modalign.NTXent, {"reduction": "avg"}),
        (modalign.SigmoidLoss, {"temperature": -1}),
        (modalign.SigmoidLoss, {"bias": float("inf")}),
        (modalign.InfoNCE, {"direction": "up"}),
        (modalign.InfoNCE, {"positives": "all"}),
    ):
        with pytest.raises(ValueError, match=rf"{module.__name__}: .* got"):
            module(**settings)


def bad_knn() -> dict[str, tuple[type[Exception], str, tuple, dict]]:
    return {
        "NaN": (ValueError, r"x must be finite, got NaN or inf in rows \[3\]", (NAN, 1), {}),
        "NaN in queries": (ValueError, r"queries must be finite", (X, 1), {"queries": NAN}),
        "k = 0": (ValueError, r"k must be between 1 and 4 for 5 rows, got 0", (X, 0), {}),
        "k = n": (ValueError, r"k must be between 1 and 4 for 5 rows, got 5", (X, 5), {}),
        "k > n with queries": (ValueError, r"k must be between 1 and 5 for 5 rows, got 6", (X, 6), {"queries": X}),
        "k not an integer": (TypeError, r"k must be an integer, got 1.5", (X, 1.5), {}),
        "k is a bool": (TypeError, r"k must be an integer, got True", (X, True), {}),
        "one row": (ValueError, r"k must be between 1 and 0 for 1 rows", (X[:1], 1), {}),
        "three dimensions": (ValueError, r"must be \(n, d\) with n, d >= 1, got \(1, 5, 3\)", (X[None], 1), {}),
        "no rows": (ValueError, r"must be \(n, d\)", (X[:0], 1), {}),
        "no features": (ValueError, r"must be \(n, d\)", (X[:, :0], 1), {}),
        "a set": (TypeError, r"x must be a NumPy array, a torch tensor, .* got set", ({1.0}, 1), {}),
        "truth values": (TypeError, r"float32, float64, int8 or integers, got bool", (np.ones((3, 2), bool), 1), {}),
        "complex": (TypeError, r"got torch.complex64", (X.cfloat(), 1), {}),
        "metric": (ValueError, r"metric must be one of .*got 'l2'", (X, 1), {"metric": "l2"}),
        "widths": (ValueError, r"width and dtype of x, got \(5, 2\)", (X, 1), {"queries": X[:, :2]}),
        "dtypes": (ValueError, r"width and dtype of x, got .*float64", (X, 1), {"queries": X.double()}),
        "overflow": (ValueError, r"dot scores overflow", (X.double() * 1e200, 1), {"metric": "dot"}),
    }


@pytest.mark.parametrize("case", bad_knn())
def test_knn_refuses(case: str) -> None:
    error, message, args, settings = bad_knn()[case]
    with pytest.raises(error, match=message):
        modalign.knn(*args, **settings)


def test_neighbor_overlap_refuses() -> None:
    a = torch.tensor([[0, 1], [1, 2]])
    for b, error, message in (
        (a.float(), TypeError, r"b must hold whole numbers, got torch\.float32"),
        (a[0], ValueError, r"b must be \(n, k\), .* got \(2,\)"),
        (a[:, :1], ValueError, r"one shape \(n, k\) .* got \(2, 2\) and \(2, 1\)"),
        (torch.zeros_like(a), ValueError, "row of b must hold distinct indices"),
    ):
        with pytest.raises(error, match=message):
            modalign.neighbor_overlap(a, b)
    with pytest.raises(ValueError, match="n, k >= 1"):
        modalign.neighbor_overlap(a[:0], a[:0])


@pytest.mark.parametrize("metric", [modalign.mutual_knn, modalign.cka, modalign.unbiased_cka])
def test_metrics_refuse(metric) -> None:
    name = metric.__name__
    with pytest.raises(
        ValueError, match=rf"{name}: x and y must be \(n, d_x\) and \(n, d_y\).*got \(5, 3\) and \(4, 3\)"
    ):
        metric(X, X[:4])
    with pytest.raises(ValueError, match=r"must be finite, got NaN or inf in rows \[3\]"):
        metric(NAN, X) if metric is not modalign.mutual_knn else metric(NAN, X, k=1)
    with pytest.raises((TypeError, ValueError), match="must be"):
        metric([[1.0]], X)


def test_constant_representations_have_no_cka() -> None:
    constant = torch.ones(6, 2)
    for metric in (modalign.cka, modalign.unbiased_cka):
        with pytest.raises(ValueError, match="y does not vary between rows"):
            metric(torch.randn(6, 2), constant)
    with pytest.raises(ValueError, match="needs at least 4 rows, got 3"):
        modalign.unbiased_cka(X[:3], X[:3])

"""The by-products of ``info_nce`` are what the softmaxes of its anchors say, and leave the gradient as it is."""

import pytest
import torch

import modalign
from losses.info_nce_options import OPTIONS, D, N, converted

pytestmark = pytest.mark.usefixtures("nan_filled_memory")


@pytest.mark.parametrize(
    "option",
    ["plain", "y_to_x", "negatives, queue, smoothing", "groups, ignore", "SupCon out", "SupCon in, ignore", "teacher"],
)
def test_stats_are_what_the_softmaxes_say(loss_backend: str, device: str, option: str) -> None:
    """The by-products agree with the softmax of each anchor, written out in one direction at a time."""
    settings = {"temperature": 0.3} | OPTIONS[option]
    x, y = torch.randn(2, N, D, dtype=torch.float64).unbind()
    y = x + 0.6 * y
    inputs = {name: converted(value, torch.float32, device) for name, value in settings.items()}
    leaves = [t.float().to(device).requires_grad_() for t in (x, y)]
    loss, stats = modalign.info_nce(*leaves, **inputs, stats="gradient", backend=loss_backend)
    plain = modalign.info_nce(*leaves, **inputs, backend=loss_backend)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)
    grads, wanted = (torch.autograd.grad(3 * value, leaves) for value in (loss, plain))
    torch.testing.assert_close(grads, wanted, rtol=1e-5, atol=1e-7)
    for norm, grad in zip((stats.x_gradient, stats.y_gradient), grads, strict=True):
        torch.testing.assert_close(norm, grad.norm() / 3, rtol=1e-5, atol=0)

    unit = lambda t: torch.nn.functional.normalize(t, dim=-1)  # noqa: E731
    kept = torch.ones(N, dtype=torch.bool) if "ignore" not in settings else ~settings["ignore"]
    numbers: dict[str, list[float]] = {name: [] for name in ("bound", "negative", "entropy", "effective")}
    lse, right = {0: [], 1: []}, {0: [], 1: []}
    for side in {"both": (0, 1), "y_to_x": (1,)}[settings.get("direction", "both")]:
        a, b = (unit(x), unit(y)) if side == 0 else (unit(y), unit(x))
        for i in range(N):
            if not kept[i]:
                lse[side].append(-torch.inf)
                continue
            mates = settings["groups"] == settings["groups"][i] if "groups" in settings else torch.arange(N) == i
            extra = [
                unit(t) @ a[i]
                for t in ([settings["negatives"][i]] if "negatives" in settings and not side else [])
                + ([settings["queue"]] if "queue" in settings and not side else [])
            ]
            cosines = b @ a[i]
            candidates = (
                kept & (~mates | (torch.arange(N) == i)) if settings.get("positives", "pair") == "pair" else kept
            )
            everything = torch.cat([cosines[candidates], *extra]) / 0.3
            negatives = torch.cat([cosines[kept & ~mates], *extra])
            pool = everything if settings.get("positives") == "out" else negatives / 0.3
            entropy = lambda logits: -(logits.softmax(0) * logits.log_softmax(0)).sum()  # noqa: E731
            counted = pool if settings.get("positives") == "out" else torch.cat([pool, cosines[i : i + 1] / 0.3])
            right[side].append(float(cosines[i] / 0.3 >= counted.max() - 1e-9))
            lse[side].append(float(everything.logsumexp(0)))
            for name, value in (
                ("bound", torch.tensor(len(everything)).log()),
                ("negative", negatives.mean()),
                ("entropy", entropy(everything)),
                ("effective", entropy(pool).exp()),
            ):
                numbers[name].append(float(value))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    close = {"rtol": 1e-4, "atol": 1e-5}
    each = modalign.info_nce(*leaves, **inputs, reduction="none", backend=loss_backend)[kept.to(device)].mean().item()
    for actual, expected in (
        (stats.mutual_information, mean(numbers["bound"]) - each), (stats.negative, mean(numbers["negative"])),
        (stats.entropy, mean(numbers["entropy"])), (stats.effective_negatives, mean(numbers["effective"])),
        (stats.positive, float((unit(x) * unit(y)).sum(1)[kept].mean())),
    ):  # fmt: skip
        torch.testing.assert_close(float(actual), float(expected), **close)
    for actual, accuracy, side in ((stats.x_lse, stats.x_accuracy, 0), (stats.y_lse, stats.y_accuracy, 1)):
        if not lse[side]:
            assert actual is accuracy is None
            continue
        torch.testing.assert_close(actual.cpu().double(), torch.tensor(lse[side], dtype=torch.float64), **close)
        torch.testing.assert_close(float(accuracy), mean(right[side]), **close)


def test_the_log_sum_exps_of_stats_are_differentiable(loss_backend: str, device: str) -> None:
    x, y = torch.randn(2, 12, 4, device=device).unbind()
    leaf = x.clone().requires_grad_()
    _, stats = modalign.info_nce(leaf, y, stats=True, temperature=1.0, normalize=False, backend=loss_backend)
    stats.x_lse.sum().backward()
    torch.testing.assert_close(leaf.grad, (x @ y.T).softmax(1) @ y, rtol=1e-5, atol=1e-6)


def test_stats_gradient_is_that_of_the_loss(loss_backend: str, device: str) -> None:
    """The gradient is right for weights, and for an input that problems share."""
    x, y = torch.randn(2, 3, 5, 4, device=device).unbind()
    leaves = {"temperature": torch.linspace(0.2, 1, 5, device=device)[None], "weights": torch.rand(5, device=device)}
    results = []
    for stats in (True, "gradient"):
        inputs = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
        loss, _ = modalign.info_nce(x, y, **inputs, stats=stats, backend=loss_backend)
        results.append(torch.autograd.grad((loss * torch.arange(3, device=device)).sum(), list(inputs.values())))
    torch.testing.assert_close(*results)


def test_stats_gradient_keeps_what_a_scaler_needs(loss_backend: str, device: str) -> None:
    n = (
        100 if (loss_backend, device) == ("triton", "cpu") else 512
    )  # the interpreter takes a minute for hundreds of rows
    x = torch.randn(n, 16, device=device).half().requires_grad_()
    y = (x.detach().float() + 0.1 * torch.randn(n, 16, device=device)).half()
    results = []
    for stats in (True, "gradient"):
        loss, by_products = modalign.info_nce(x, y, temperature=0.1, stats=stats, backend=loss_backend)
        results.append(torch.autograd.grad(65536 * loss, x)[0].float())
    assert float((results[0] - results[1]).norm() / results[0].norm()) < 2e-3
    torch.testing.assert_close(by_products.x_gradient, results[0].norm() / 65536, rtol=2e-3, atol=0)

"""Tables on a terminal: nothing of the user's names is lost, at any width."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from modalign.alignment.nulls import Null
from modalign.cli import tables as printing
from modalign.experiments import advice as advise
from modalign.information import Regime
from modalign.report.figures.stills import extra_height, wrapped
from modalign.report.pages import comparison as comparison_page
from modalign.report.pages import tune as tune_page
from report.studies import advice, alignments, tune_search
from report.sweeps import constant, write_sweep

LABEL = "emb [clip] [/] :heart: x"


def printed(what: object, *arguments: object, width: int = 160) -> str:
    into = io.StringIO()
    what(*arguments, Console(file=into, width=width, emoji=False))  # type: ignore[operator]
    return into.getvalue()


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    table = constant({0.0: [0.9, 0.4, 0.1], 0.3: [0.99, 0.5, 0.02]})
    room = tmp_path_factory.mktemp("sweeps")
    more = {"cases": [LABEL], "strengths": [0.0, 0.3], "seeds": [0, 1, 2], "epochs": 1}
    return [write_sweep(room / name, table, **more) for name in ("first", "second")]


def test_brackets_in_names_are_printed(sweeps: list[Path], tmp_path: Path) -> None:
    tune_search(tmp_path / "tune", [LABEL])
    assert LABEL in printed(printing.print_optima, tmp_path / "tune")
    assert LABEL in printed(printing.print_differences, *sweeps)
    row = {"case": LABEL, "name": "[a]", "tuned": 0.1, "grid": 0.1, "regret": 0.0, "regret_of_none": 0.0, "cost": 0.1}
    text = printed(printing.print_regret, [row])
    assert LABEL in text
    assert "[a]" in text
    claim = {
        "text": LABEL,
        "source": "figure 1",
        "low": None,
        "paper": None,
        "rule": "holds",
        "value": 1.0,
        "verdict": "reproduced",
    }
    (tmp_path / "claims.json").write_text(json.dumps([claim]))
    assert LABEL in printed(printing.print_claims, tmp_path)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_width_leaves_anything_out(width: int) -> None:
    catalogue = printed(printing.print_catalogue, width=width)
    assert "…" not in catalogue
    assert "digit_bits" in catalogue
    whole, _ = alignments()
    text = printed(printing.print_alignment, whole, width=width)
    assert "…" not in text
    assert all(f"{score.value:.4f}" in text for score in whole.scores)
    assert (width < 80) or all(score.metric in text for score in whole.scores)


def test_a_pipe_is_wide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    printing.print_catalogue()
    assert max(map(len, capsys.readouterr().out.splitlines())) > 120
    monkeypatch.setenv("COLUMNS", "80")
    printing.print_catalogue()
    assert max(map(len, capsys.readouterr().out.splitlines())) == 80


def test_gains_are_compared_with_their_intervals(sweeps: list[Path]) -> None:
    text = printed(printing.print_differences, *sweeps)
    gain = comparison_page.compare(*sweeps)[0].gain[0]
    assert printing.fixed(100 * gain.mean, 1) in text
    assert f"[{100 * gain.low:.1f}, {100 * gain.high:.1f}] → " in text  # type: ignore[operator]


def test_p_at_its_floor_is_a_bound() -> None:
    whole, _ = alignments()

    def p(null: Null) -> str:
        return printing.chance_of(dataclasses.replace(whole.scores[0], null=null))

    assert p(Null("relabelled", 0.0, 0.1, 1 / 201, 0.1, 0.0, 200)) == "≤ 0.005"
    assert p(Null("relabelled", 0.0, 0.1, 2 / 201, 0.1, 0.0, 200)) == "0.01"
    assert p(Null("closed form", 0.0, 0.1, 0.005, 0.1, 0.0)) == "0.005"
    assert p(Null("closed form", 0.0, 0.1, 1e-20, 0.1, 0.0)) == "< 1e-12"


def test_the_best_layers_are_the_brightest() -> None:
    _, layers = alignments()
    for metric, brightest in (("cka", 0.75), ("cmd", 0.25)):
        shown = dataclasses.replace(layers, metric=metric, matrix=[[0.5], [0.25], [0.75]], best=(0, 0))
        into = io.StringIO()
        console = Console(file=into, width=100, force_terminal=True, color_system="truecolor")
        printing.print_layers(shown, console)
        assert f"48;2;30;90;150m{brightest:.3f}" in into.getvalue()
        assert ("(lower is closer)" in into.getvalue()) == (metric == "cmd")


def test_a_gain_is_claimed_where_its_interval_is_above_0() -> None:
    def said(**change: float) -> str:
        strength = {"best": 0.2, "low": 0.1, "high": 0.3}
        one = strength | {"gain": 0.013, "gain_low": 0.002, "gain_high": 0.026, "helps": 0.99} | change
        return tune_page.sentence("c", {"modalities": ["x"], "optima": [one]})

    gain = "c: x gains 1.3 points of validation accuracy [0.2, 2.6] at strength 0.2, likely between 0.1 and 0.3."
    assert said() == gain
    told = "+1.3 points [-0.03, 2.6] at strength 0.2; some strength helps with probability 97%"
    assert said(gain_low=-0.0003, helps=0.97) == f"c: no gain is shown for x ({told})."
    without = said(best=0.0, gain=0.0, gain_low=0.0, gain_high=0.0, helps=0.3)
    assert without == "c: no gain is shown for x (some strength helps with probability 30%)."


@pytest.mark.parametrize("name", ["both", "align only", "predict only", "neither"])
def test_a_regime_is_that_of_a_model_and_the_pairs_are_trained(name: str) -> None:
    found = dataclasses.replace(advice(), regime=Regime(name, *(0.0,) * (len(dataclasses.fields(Regime)) - 1)))
    said = found.sentences()
    assert said[1].startswith("In a simple linear model of these data (arXiv:2606.11190) ")
    assert said[1].endswith("; the pairs below were trained.")
    assert ("neither" in said[1]) == (name == "neither")
    assert not any("Regime:" in sentence for sentence in said)


def test_an_advice_names_its_range_and_what_r_is() -> None:
    said = advice().sentences()
    assert "+1.2 points (from -0.2 to 3.0 among the 6 nearest modalities) at their best strength, 0.1 to 1, " in said[1]
    meaning = "(R = 0, R = 2, R = 4: synthetic pairs; both modalities see R of the 8 features that make the label.)"
    assert said[-1].endswith(meaning)
    none = [dataclasses.replace(one, like=("image x text",), gain_low=-0.0001) for one in advice().expectations]
    others = dataclasses.replace(advice(), expectations=(none[0], none[1])).sentences()
    assert len(others) == 3
    assert "(from 0.0 to" in others[1]
    assert advise.trust().startswith("How far")


def test_long_titles_are_broken_and_given_room() -> None:
    title = "a rather long label of a case, as people write them: ViT-B/32 × MiniLM-L6-v2: modality 1"
    lines = wrapped(title, 2).split("\n")
    assert len(lines) == 2
    assert " ".join(lines) == title
    assert extra_height([wrapped(title, 2), "short"]) == pytest.approx(0.15)
    assert wrapped("", 2) == ""
    assert max(map(len, wrapped("x" * 100, 3).split("\n"))) == 35

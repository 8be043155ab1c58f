"""Both towers of CLIP, SigLIP and OpenCLIP models give the embeddings that the model itself compares."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modalign.cli import app
from modalign.encoders.embedding import embed

TEXTS = ["a cat", "two dogs on a bed", "a"]
IMAGES = [Image.new("RGB", (20, 16), (60 * i, 5, 200)) for i in range(3)]


def tokenizer(folder: Path) -> Any:
    """Save a tokenizer of words, which ends a text with a token of its own."""
    import tokenizers
    import transformers

    words = ["<pad>", "<unk>", "<end>", *["a", "cat", "two", "dogs", "on", "bed"]]
    model = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 2)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", model_max_length=12
    )
    fast.save_pretrained(folder)
    return fast


def two_towers(kind: str, folder: Path) -> tuple[Any, Any]:
    """Save a small random model of images and texts, and return it with its tokenizer."""
    import transformers

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**shape, "vocab_size": 9, "max_position_embeddings": 10, "pad_token_id": 0, "eos_token_id": 2}
    vision = {**shape, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model = transformers.CLIPModel(config)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    model.save_pretrained(folder)
    size = {"height": 16, "width": 16}
    processor = transformers.ViTImageProcessor(size=size)
    processor.save_pretrained(folder)
    return model.eval(), tokenizer(folder)


def unit_rows(path: Path) -> np.ndarray:
    rows = np.load(path)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_embeddings_are_those_that_the_model_compares(kind: str, tmp_path: Path) -> None:
    import transformers

    model, words = two_towers(kind, tmp_path)
    place = f"transformers:{tmp_path}"
    texts = unit_rows(embed(place, TEXTS, tmp_path / "texts.npy", dtype="float32", batch_size=2))
    images = unit_rows(embed(place, IMAGES, tmp_path / "images.npy", dtype="float32"))
    padding = {"padding": "max_length", "max_length": 10} if kind == "siglip" else {"padding": True}
    tokens = words(TEXTS, return_tensors="pt", **padding)
    pixels = transformers.AutoImageProcessor.from_pretrained(tmp_path)(IMAGES, return_tensors="pt")
    with torch.no_grad():
        out = model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels["pixel_values"]
        )
    assert np.allclose(texts, out.text_embeds, atol=1e-5)
    assert np.allclose(images, out.image_embeds, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hidden_states_of_a_tower(kind: str, tmp_path: Path) -> None:
    two_towers(kind, tmp_path)
    for name, inputs in (("texts", TEXTS), ("images", IMAGES)):
        every = np.load(embed(f"transformers:{tmp_path}", inputs, tmp_path / f"{name}.npy", layers="all"))
        assert every.shape == (3, 3, 16)
        first = np.load(embed(f"transformers:{tmp_path}", inputs, tmp_path / f"{name}-cls.npy", pooling="cls"))
        assert first.shape == (3, 16)


def test_a_model_of_images_alone_takes_no_texts(tmp_path: Path) -> None:
    import transformers

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.ViTModel(transformers.ViTConfig(**shape, image_size=16, patch_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no tokenizer, so its model takes no texts"):
        embed(f"transformers:{tmp_path}", TEXTS, tmp_path / "texts.npy")
    with pytest.raises(ValueError, match="has no image processor, so its model takes no images"):
        embed(f"transformers:{tmp_path}", IMAGES, tmp_path / "images.npy")


class Loaded(nn.Module):
    """A model of texts and images as transformers loads one, before version 5 (plain tensors) and since."""

    def __init__(self, wrapped: bool, kind: str) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.config = SimpleNamespace(model_type=kind, text_config=SimpleNamespace(max_position_embeddings=7))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        assert attention_mask is None or attention_mask.shape == input_ids.shape
        rows = torch.stack([input_ids.sum(1), torch.full((len(input_ids),), input_ids.shape[1])], 1).float()
        return SimpleNamespace(pooler_output=rows) if self.wrapped else rows

    def get_image_features(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(pooler_output=pixel_values) if self.wrapped else pixel_values


class Batch(dict[str, Tensor]):
    def to(self, device: str) -> Batch:
        return self


class Words:
    pad_token, eos_token, model_max_length, padding_side = "<pad>", "<end>", 10**30, "right"

    def __call__(self, texts: list[str], *, padding: bool | str, max_length: int, **options: Any) -> Batch:
        lengths = [min(len(text.split()), max_length) for text in texts]
        ids = torch.zeros(len(texts), max_length if padding == "max_length" else max(lengths), dtype=torch.int64)
        for row, length in zip(ids, lengths, strict=True):
            row[:length] = 1
        return Batch(input_ids=ids, token_type_ids=ids)


def mean_colours(images: list[Image.Image], return_tensors: str) -> Batch:
    return Batch(pixel_values=torch.tensor([np.asarray(image).mean((0, 1)).tolist() for image in images]))


@pytest.mark.parametrize(
    ("wrapped", "kind", "longest"), [(False, "clip", 5), (True, "clip", 5), (True, "siglip", 7), (True, "siglip2", 7)]
)
def test_each_version_of_transformers_gives_the_shared_space(
    wrapped: bool, kind: str, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModuleType("transformers")
    for name, loaded in (
        ("AutoModel", Loaded(wrapped, kind)),
        ("AutoTokenizer", Words()),
        ("AutoImageProcessor", mean_colours),
    ):
        setattr(package, name, SimpleNamespace(from_pretrained=lambda *_, loaded=loaded, **__: loaded))
    monkeypatch.setitem(sys.modules, "transformers", package)
    place = f"transformers:{tmp_path}"
    texts = np.load(embed(place, TEXTS, tmp_path / "texts.npy"))
    assert texts.tolist() == [[2, longest], [5, longest], [1, longest]]
    assert np.load(embed(place, IMAGES, tmp_path / "images.npy")).tolist() == [[60 * i, 5, 200] for i in range(3)]


def test_both_towers_of_an_open_clip_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``open_clip`` as it is documented: create_model_and_transforms, get_tokenizer, encode_text, encode_image."""
    loaded = []

    class Model(nn.Module):
        def encode_text(self, tokens: Tensor) -> Tensor:
            return tokens.float()

        def encode_image(self, pixels: Tensor) -> Tensor:
            return pixels.mean((2, 3))

    def create(name: str, pretrained: str | None = None, device: str = "cpu") -> tuple[Any, Any, Any]:
        loaded.append((name, pretrained))
        return Model(), None, lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float()

    package = ModuleType("open_clip")
    package.create_model_and_transforms = create  # type: ignore[attr-defined]
    package.get_tokenizer = lambda name: lambda texts: torch.tensor([[len(text)] for text in texts])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", package)
    (tmp_path / "weights.pt").write_bytes(b"")
    place = f"open_clip:ViT-B-32@{tmp_path}/weights.pt"
    assert np.load(embed(place, TEXTS, tmp_path / "texts.npy")).ravel().tolist() == [len(text) for text in TEXTS]
    assert np.load(embed(f"open_clip:{tmp_path}", IMAGES, tmp_path / "images.npy")).tolist()[1] == [60, 5, 200]
    assert loaded == [("ViT-B-32", f"{tmp_path}/weights.pt"), (f"local-dir:{tmp_path}", None)]
    with pytest.raises(FileNotFoundError, match=r"open_clip:ViT-B-32@WEIGHTS or open_clip:FOLDER, nothing is down"):
        embed("open_clip:ViT-B-32", TEXTS, tmp_path / "none.npy")


def test_both_sides_of_the_same_items_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lengths_of.py").write_text("def embed(batch):\n    return [[len(text), 1.0] for text in batch]\n")
    for name, texts in (("a.txt", ["x", "yy"]), ("b.txt", ["long", "z"]), ("short.txt", ["z"])):
        (tmp_path / name).write_text("\n".join(texts))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit:
            app(["embed", "python:lengths_of:embed", *arguments])
        return int(exit.value.code or 0)

    assert run("a.txt", "b.txt", "--out", "a.npy", "--out", "b.npy") == 0
    assert np.load("a.npy").tolist() == [[1, 1], [2, 1]]
    assert np.load("b.npy").tolist() == [[4, 1], [1, 1]]
    for arguments, message in (
        (("a.txt", "b.txt", "--out", "c.npy"), "--out must name one file for each of INPUTS, 2 in all, got c.npy"),
        (
            ("a.txt", "short.txt", "--out", "c.npy", "--out", "d.npy"),
            "inputs must be the same items in one order, got 2 in a.txt, 1 in short.txt",
        ),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not Path("c.npy").exists()

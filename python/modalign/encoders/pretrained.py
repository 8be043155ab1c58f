"""Encoders on this machine by name: sentence-transformers, transformers, timm, or a function. None is downloaded."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.encoders.user_modules import named_function

__all__ = ["POOLINGS", "Encode", "load_encoder", "offline"]

POOLINGS = ("mean", "cls", "last")
KINDS = ("sentence-transformers", "transformers", "timm", "python")
# takes a batch of texts or of Pillow images and returns an array or tensor, (b, d) or (b, layers, d)
Encode = Callable[[Sequence[Any]], Any]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep Hugging Face's libraries from looking beyond this machine until the block ends."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load_encoder(
    encoder: str | Encode, texts: bool = True, layers: str = "last", pooling: str | None = None, device: str = "cpu"
) -> Encode:
    """Load an encoder once for many calls.

    Args:
        encoder: As ``embed`` takes it.
        texts: True for an encoder of texts, False for one of images.
        layers: "last", or "all" hidden states of a transformers model.
        pooling: Pooling of a transformers model: "mean", "cls" or "last"; by default the mean for texts and the first
            token for images.
        device: Of torch.

    Returns:
        A function from a list of texts or images to (b, d), or (b, layers, d).

    Raises:
        ValueError: If the encoder or an option is not known, or they do not go together.
        FileNotFoundError: If there is no such folder or file.
        ModuleNotFoundError: If a package is missing; it says what to install.
    """
    if not isinstance(encoder, str):
        return encoder
    kind, _, place = encoder.partition(":")
    if kind not in KINDS or not place:
        raise ValueError(f"embed: encoder must be one of {', '.join(f'{k}:...' for k in KINDS)}, got {encoder!r}")
    if kind == "python":
        return named_function(place, "embed: encoder")
    if layers == "all" and kind != "transformers":
        raise ValueError(f"embed: a {kind} encoder gives one layer; layers=all is for transformers models")
    if pooling is not None and kind != "transformers":
        raise ValueError(f"embed: a {kind} encoder pools by itself; leave pooling out")
    if kind == "timm":
        return _load_timm(place, texts, device)
    folder = Path(place)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; models are read from folders, nothing is downloaded")
    if kind == "sentence-transformers":
        model = _package("sentence_transformers", "sentence-transformers").SentenceTransformer(
            str(folder), device=device, local_files_only=True
        )
        return lambda batch: model.encode(list(batch), batch_size=len(batch), show_progress_bar=False)
    if texts:
        return _load_text_model(folder, layers, pooling or "mean", device)
    return _load_image_model(folder, layers, pooling or "cls", device)


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"this encoder needs the {name} package: pip install {name}") from None


def _options(folder: Path) -> dict[str, bool | str]:
    """Return the options with which transformers reads a folder: one .gguf file there holds model and tokenizer."""
    weights = sorted(file.name for file in folder.glob("*.gguf"))
    return {"local_files_only": True, **({"gguf_file": weights[0]} if weights else {})}


def _load_model(folder: Path, device: str) -> Any:
    model = _package("transformers", "transformers").AutoModel
    return model.from_pretrained(str(folder), **_options(folder)).to(device).eval()


def _load_text_model(folder: Path, layers: str, pooling: str, device: str) -> Encode:
    model = _load_model(folder, device)
    tokenizer = _package("transformers", "transformers").AutoTokenizer.from_pretrained(str(folder), **_options(folder))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))

    @torch.inference_mode()
    def encode(batch: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(batch), padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
        out = model(**tokens, output_hidden_states=layers == "all")
        hidden = torch.stack(out.hidden_states, 1) if layers == "all" else out.last_hidden_state[:, None]
        pooled = _pooled(hidden, tokens["attention_mask"], pooling)
        return pooled if layers == "all" else pooled[:, 0]

    return encode


def _load_image_model(folder: Path, layers: str, pooling: str, device: str) -> Encode:
    model = _load_model(folder, device)
    processor = _package("transformers", "transformers").AutoImageProcessor.from_pretrained(
        str(folder), local_files_only=True
    )

    @torch.inference_mode()
    def encode(batch: Sequence[object]) -> Tensor:
        out = model(**processor(list(batch), return_tensors="pt").to(device), output_hidden_states=layers == "all")
        hidden = torch.stack(out.hidden_states, 1) if layers == "all" else out.last_hidden_state[:, None]
        if hidden.ndim == 5:  # (b, layers, channels, h, w): positions are tokens
            hidden = hidden.flatten(3).transpose(2, 3)
        pooled = _pooled(hidden, torch.ones(hidden.shape[0], hidden.shape[2], device=hidden.device), pooling)
        return pooled if layers == "all" else pooled[:, 0]

    return encode


def _pooled(hidden: Tensor, kept: Tensor, pooling: str) -> Tensor:
    """Pool hidden states (b, layers, tokens, d) over the tokens kept (b, tokens) to (b, layers, d)."""
    if pooling == "cls":
        return hidden[:, :, 0]
    if pooling == "last":
        last = kept.long().sum(1) - 1
        return hidden[torch.arange(len(hidden)), :, last]
    weights = kept.to(hidden.dtype)[:, None, :, None]
    return (hidden * weights).sum(2) / weights.sum(2).clamp(min=1)


def _load_timm(place: str, texts: bool, device: str) -> Encode:
    name, _, weights = place.partition("@")
    if texts:
        raise ValueError("embed: a timm encoder takes images, got texts")
    if not weights or not Path(weights).is_file():
        raise FileNotFoundError(
            f"there is no file {weights or 'of weights'}; give timm:{name}@WEIGHTS, nothing is downloaded"
        )
    timm = _package("timm", "timm")
    model = timm.create_model(name, pretrained=False, num_classes=0, checkpoint_path=weights).to(device).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)

    @torch.inference_mode()
    def encode(batch: Sequence[object]) -> Tensor:
        features: Tensor = model(torch.stack([transform(image) for image in batch]).to(device))
        return features

    return encode

"""Encoders on this machine by name: sentence-transformers, transformers, OpenCLIP, timm, or a function.

None is downloaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from modalign.common.names import suggestion
from modalign.encoders.transformers_models import (
    HiddenStates,
    load_image_model,
    load_text_model,
    require_package,
    without_bars,
)
from modalign.encoders.user_modules import named_function
from modalign.files.paths import expanded

__all__ = ["Encode", "load_encoder", "offline"]

KINDS = ("sentence-transformers", "transformers", "open_clip", "timm", "python")
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
            token for images, and of CLIP and its like the embeddings that texts and images share.
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
        known = ", ".join(f"{kind}:..." for kind in KINDS)
        raise ValueError(f"embed: encoder must be one of {known}, got {encoder!r}{suggestion(kind, KINDS)}")
    if kind == "python":
        return named_function(place, "embed: encoder")
    if layers == "all" and kind != "transformers":
        raise ValueError(f"embed: a {kind} encoder gives one layer; layers=all is for transformers models")
    if pooling is not None and kind != "transformers":
        raise ValueError(f"embed: a {kind} encoder pools by itself; leave pooling out")
    if kind == "timm":
        return _load_timm(place, texts, device)
    if kind == "open_clip":
        return _load_open_clip(place, texts, device)
    folder = expanded(place)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; models are read from folders, nothing is downloaded")
    if kind == "sentence-transformers":
        package = require_package("sentence_transformers", "sentence-transformers")
        with without_bars():
            model = package.SentenceTransformer(str(folder), device=device, local_files_only=True)
        return lambda batch: model.encode(list(batch), batch_size=len(batch), show_progress_bar=False)
    load = load_text_model if texts else load_image_model
    return load(folder, HiddenStates(layers == "all", pooling), device)


def _load_timm(place: str, texts: bool, device: str) -> Encode:
    name, _, weights = place.partition("@")
    if texts:
        raise ValueError("embed: a timm encoder takes images, got texts")
    checkpoint = expanded(weights)
    if not weights or not checkpoint.is_file():
        raise FileNotFoundError(
            f"there is no file {weights or 'of weights'}; give timm:{name}@WEIGHTS, nothing is downloaded"
        )
    timm = require_package("timm", "timm")
    model = timm.create_model(name, pretrained=False, num_classes=0, checkpoint_path=str(checkpoint)).to(device).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)

    @torch.inference_mode()
    def encode(batch: Sequence[object]) -> Tensor:
        features: Tensor = model(torch.stack([transform(image) for image in batch]).to(device))
        return features

    return encode


def _load_open_clip(place: str, texts: bool, device: str) -> Encode:
    """Load one tower of an OpenCLIP model: a folder with open_clip_config.json, or MODEL@WEIGHTS."""
    name, _, weights = place.partition("@")
    folder, checkpoint = expanded(place), expanded(weights)
    if folder.is_dir():
        name, weights = f"local-dir:{folder}", ""
    elif not weights or not checkpoint.is_file():
        raise FileNotFoundError(
            f"there is no file {weights or 'of weights'}; give open_clip:{name}@WEIGHTS or open_clip:FOLDER, nothing "
            "is downloaded"
        )
    open_clip = require_package("open_clip", "open_clip_torch")
    model, _, transform = open_clip.create_model_and_transforms(
        name, pretrained=str(checkpoint) if weights else None, device=device
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)

    @torch.inference_mode()
    def encode(batch: Sequence[Any]) -> Tensor:
        if texts:
            features: Tensor = model.encode_text(tokenizer(list(batch)).to(device))
        else:
            features = model.encode_image(torch.stack([transform(image) for image in batch]).to(device))
        return features

    return encode

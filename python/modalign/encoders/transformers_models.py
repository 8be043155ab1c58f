"""Models of the transformers package in folders: texts, images, and both towers of CLIP, SigLIP and their like."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["POOLINGS", "HiddenStates", "load_image_model", "load_text_model", "require_package", "without_bars"]

POOLINGS = ("mean", "cls", "last")
MOST_TOKENS = 512  # of a model that does not say


@dataclass(frozen=True)
class HiddenStates:
    """The hidden states that are wanted of a model.

    Attributes:
        every_layer: Whether those of all layers are wanted, or those of the last one.
        pooling: How tokens are pooled, "mean", "cls" or "last", or None for the model's default.
    """

    every_layer: bool
    pooling: str | None

    def pooled(self, hidden: Tensor, kept: Tensor, default: str) -> Tensor:
        """Return hidden states (b, layers, tokens, d) pooled over the tokens kept (b, tokens)."""
        rows = _pooled(hidden, kept, self.pooling or default)
        return rows if self.every_layer else rows[:, -1]

    def of(self, output: Any) -> Tensor:
        """Return the hidden states in a model's output as (b, layers, tokens, d)."""
        return torch.stack(output.hidden_states, 1) if self.every_layer else output.last_hidden_state[:, None]

    def shared_space(self, model: Any) -> bool:
        """Return whether the model maps texts and images into one space, and nothing else was asked for."""
        return _has_two_towers(model) and not self.every_layer and self.pooling is None


def require_package(module: str, name: str) -> Any:
    """Import a package; ModuleNotFoundError says what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(f"this encoder needs the {name} package: pip install {name}") from None


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers, which must be installed, from showing bars while it loads weights, until the block ends."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_text_model(folder: Path, states: HiddenStates, device: str) -> Callable[[Sequence[str]], Tensor]:
    """Load a model of texts, or the text tower of a model of texts and images.

    SigLIP's tower reads the last place of a text that is padded to its full length, so texts are padded for it as it
    was trained.
    """
    model = _load_model(folder, device)
    tokenizer = _load_part("AutoTokenizer", folder, "texts")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    two_towers = _has_two_towers(model)
    config = getattr(model.config, "text_config", model.config) if two_towers else model.config
    limit = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", MOST_TOKENS))
    padding = "max_length" if str(model.config.model_type).startswith("siglip") else True

    @torch.inference_mode()
    def encode(batch: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(batch), padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        tokens = tokens.to(device)
        if two_towers:
            tokens = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
        if states.shared_space(model):
            return _features(model.get_text_features(**tokens))
        tower = model.text_model if two_towers else model
        hidden = states.of(tower(**tokens, output_hidden_states=states.every_layer))
        kept = tokens["attention_mask"] if "attention_mask" in tokens else torch.ones_like(tokens["input_ids"])
        return states.pooled(hidden, kept, "mean")

    return encode


def load_image_model(folder: Path, states: HiddenStates, device: str) -> Callable[[Sequence[object]], Tensor]:
    """Load a model of images, or the image tower of a model of texts and images."""
    model = _load_model(folder, device)
    processor = _load_part("AutoImageProcessor", folder, "images")

    @torch.inference_mode()
    def encode(batch: Sequence[object]) -> Tensor:
        pixels = processor(list(batch), return_tensors="pt").to(device)
        if states.shared_space(model):
            return _features(model.get_image_features(**pixels))
        tower = model.vision_model if _has_two_towers(model) else model
        hidden = states.of(tower(**pixels, output_hidden_states=states.every_layer))
        if hidden.ndim == 5:  # (b, layers, channels, h, w): positions are tokens
            hidden = hidden.flatten(3).transpose(2, 3)
        return states.pooled(hidden, torch.ones(hidden.shape[0], hidden.shape[2], device=hidden.device), "cls")

    return encode


def _has_two_towers(model: Any) -> bool:
    return hasattr(model, "get_text_features") and hasattr(model, "get_image_features")


def _features(output: Any) -> Tensor:
    """Return the embeddings of the shared space; since transformers 5 they come as the pooled output."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def _options(folder: Path) -> dict[str, bool | str]:
    """Return the options with which transformers reads a folder: one .gguf file there holds model and tokenizer."""
    weights = sorted(file.name for file in folder.glob("*.gguf"))
    return {"local_files_only": True, **({"gguf_file": weights[0]} if weights else {})}


def _load_model(folder: Path, device: str) -> Any:
    model = require_package("transformers", "transformers").AutoModel
    with without_bars():
        return model.from_pretrained(str(folder), **_options(folder)).to(device).eval()


def _load_part(kind: str, folder: Path, inputs: str) -> Any:
    """Load the tokenizer or image processor of a folder."""
    options = _options(folder) if kind == "AutoTokenizer" else {"local_files_only": True}
    try:
        return getattr(require_package("transformers", "transformers"), kind).from_pretrained(str(folder), **options)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        part = "tokenizer" if kind == "AutoTokenizer" else "image processor"
        raise ValueError(
            f"embed: {folder} has no {part}, so its model takes no {inputs} ({reason}); save it beside the model"
        ) from None


def _pooled(hidden: Tensor, kept: Tensor, pooling: str) -> Tensor:
    """Pool hidden states (b, layers, tokens, d) over the tokens kept (b, tokens) to (b, layers, d)."""
    if pooling == "cls":
        return hidden[:, :, 0]
    if pooling == "last":
        last = kept.long().sum(1) - 1
        return hidden[torch.arange(len(hidden)), :, last]
    weights = kept.to(hidden.dtype)[:, None, :, None]
    return (hidden * weights).sum(2) / weights.sum(2).clamp(min=1)

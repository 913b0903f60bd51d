"""The cards of the trained models that come with the book, made from the JSON beside each model."""

import hashlib
import json
import statistics
from pathlib import Path

from ..paths import checkout
from .summaries import duration

DATA = {
    "cifar10": (
        'CIFAR-10, all 50,000 training images (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny '
        'Images", 2009). The data set is not part of this repository, and its licence does not cover it'
    ),
    "fontdigits": "FontDigits, drawn by `cmxlib.learn.fontdigits`; under the licence of this repository",
}


def models(folder: Path | None = None) -> list[Path]:
    """The JSON file of each model in the folder."""
    return sorted((folder or checkout() / "models").glob("*.json"))


def model_cards(folder: Path | None = None) -> str:
    """A card in Markdown for each model: what it is, data, settings, accuracy, file."""
    return "\n\n".join(card(path) for path in models(folder)) or "No model is here yet."


def card(path: Path) -> str:
    """The card of the model whose JSON this is; its weights lie beside it, as safetensors. ValueError where the JSON is
    damaged."""
    try:
        return _card(path)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): restore it from a copy.") from error


def _card(path):
    found, weights = json.loads(path.read_text("utf-8")), path.with_suffix(".safetensors").read_bytes()
    dataset, network, settings = found["recipe"]
    # The median, since a training may have been paused in an epoch.
    last, seconds = found["history"][-1], statistics.median(epoch["seconds"] for epoch in found["history"])
    lines = [
        f"## {path.stem}",
        "",
        "| | |",
        "|---|---|",
        f"| What | ConvMixer-{network['dim']}/{network['depth']}, patches of {network['patch_size']}, depthwise "
        f"kernels of {network['kernel_size']}: a plain classifier, trained on plain images, without any key |",
        f"| Data | {DATA[dataset]} |",
        f"| Test accuracy | {last['test_accuracy']:.2%} as measured in training, after the last of {last['epoch']} "
        "epochs; the recorded tables measure anew, in float32 |",
        f"| Settings | {', '.join(f'{name} {value}' for name, value in settings.items())} |",
        f"| Training | {last['epoch']} epochs of {duration(seconds)} (median), torch {found['torch'].split('+')[0]}, "
        f"CPU threads: {found['threads']} |",
        f"| File | `{path.stem}.safetensors`, {len(weights) / 1e6:.2f} MB, SHA-256 "
        f"`{hashlib.sha256(weights).hexdigest()}` |",
        "| Licence | of the weights: that of this repository |",
        "| Use | for study: to try keys within a minute, without training |",
    ]
    return "\n".join(lines)

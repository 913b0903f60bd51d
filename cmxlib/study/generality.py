"""The table of networks other than ConvMixer that begin with a patch embedding: a vision transformer, an MLP-Mixer.

Both are timm's, trained on the same plain images by the same loop as the book's ConvMixer.
"""

from ..learn.device import bf16_is_faster, default_device
from ..learn.evaluate import wrong_key_accuracy
from .networks import right_keys
from .scales import Scale, trained_model
from .table import Table, of_network

WRONG = 20  # wrong keys for each network and cipher


def _units(scale: Scale):
    for network in scale.others:
        for steps in scale.ciphers:
            yield from ({"network": network, "steps": steps, "case": case} for case in ("correct key", "wrong key"))


def _generality(scale: Scale, unit: dict):
    scale, data = scale.of(unit["network"]), scale.data()
    model, _ = trained_model(scale)

    def cipher(key):
        return scale.ciphers[unit["steps"]](key, scale.model["patch_size"])

    if unit["case"] == "correct key":  # and the other cases that are of no wrong key
        yield from right_keys(model, data, cipher)
        return
    options = {"n_images": _n_images(scale, unit), "autocast": bf16_is_faster(default_device())}
    for key_seed in range(1, 1 + WRONG):
        value = wrong_key_accuracy(model, data, cipher, key_seed, **options)
        yield {"key_seed": key_seed, "measure": "accuracy", "value": value}


def _n_images(scale: Scale, unit: dict) -> int:
    """All test images, and for wrong keys the first of them, as many as for nearly right ones."""
    return scale.anatomy_images if unit["case"] == "wrong key" else len(scale.data().test_labels)


GENERALITY = Table(
    "generality",
    _units,
    _generality,
    lambda scale, unit: of_network(scale.of(unit["network"]), 0, WRONG, _n_images(scale, unit)),
    left_out=("paper",),
)

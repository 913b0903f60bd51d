"""What the attacks refuse, in one sentence that names the argument; and that the modes of models stay as they were."""

import pytest
import torch

from cmxlib import ConvMixer, PatchCipher, SecretKey
from cmxlib.attacks.adversarial import pgd, square
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_images import known_plaintext, patch_moments
from cmxlib.attacks.on_models import random_keys

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS, NORM = torch.arange(6), {"mean": (0.5,) * 3, "std": (0.3,) * 3}


def model():
    torch.manual_seed(0)
    return ConvMixer(8, 1, 3, 4).eval()


@pytest.mark.parametrize(
    ("attack", "error", "match"),
    [
        (lambda: known_plaintext(IMAGES, IMAGES.long()), TypeError, "uint8"),  # counted as values in [0, 1]
        (lambda: patch_moments(IMAGES[0], 4), ValueError, "shape"),
        (lambda: patch_moments(IMAGES[..., :3, :3], 4), ValueError, "patches of 4"),
        (lambda: known_plaintext(IMAGES, IMAGES, steps="shuffle"), TypeError, r"\('shuffle',\)"),
        (lambda: known_plaintext(IMAGES, IMAGES, steps=("orthogonal", "flip")), ValueError, "alone"),
        (lambda: pgd(model(), IMAGES, LABELS[:, None], **NORM), ValueError, "labels"),
        (lambda: pgd(model(), IMAGES.long(), LABELS, **NORM), TypeError, "uint8"),
        (lambda: random_keys(model(), IMAGES, LABELS.float(), **NORM, trials=1), TypeError, "labels"),
    ],
)
def test_one_sentence_names_the_argument(attack, error, match):
    with pytest.raises(error, match=match) as caught:
        attack()
    assert "\n" not in str(caught.value)


def test_the_whole_key_is_found_where_images_have_their_type():
    cipher = PatchCipher(SecretKey.for_experiment(1))
    assert share_recovered(known_plaintext(cipher.encrypt(IMAGES), IMAGES), cipher) == 1


@pytest.mark.parametrize(
    "attack", [lambda m, y: pgd(m, IMAGES, y, **NORM, steps=1), lambda m, y: square(m, IMAGES, y, **NORM, queries=1)]
)
@pytest.mark.parametrize("labels", [LABELS, LABELS + 100])  # the second fails within the attack
def test_a_frozen_layer_stays_frozen(attack, labels):
    attacked = model().train()
    attacked[2].eval()
    before = [module.training for module in attacked.modules()]
    try:
        attack(attacked, labels)
    except Exception:
        assert labels is not LABELS
    assert [module.training for module in attacked.modules()] == before

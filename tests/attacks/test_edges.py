"""What the attacks refuse, in one sentence that names the argument; and that the modes of models stay as they were."""

import pytest
import torch

from cmxlib import ConvMixer, PatchCipher, SecretKey
from cmxlib.attacks.adversarial import pgd, square
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_images import chosen_image, ciphertext_only, known_plaintext, patch_moments
from cmxlib.attacks.on_models import hill_climb, random_keys

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS, NORM = torch.arange(6), {"mean": (0.5,) * 3, "std": (0.3,) * 3}


def model():
    torch.manual_seed(0)
    return ConvMixer(8, 1, 3, 4).eval()


@pytest.mark.parametrize(
    ("attack", "error", "match"),
    [
        (lambda: known_plaintext(IMAGES, IMAGES.long()), TypeError, "uint8"),  # counted as values in [0, 1]
        (lambda: known_plaintext(IMAGES.int(), IMAGES.int()), TypeError, "uint8"),
        (lambda: ciphertext_only(IMAGES, IMAGES.long()), TypeError, "uint8"),
        (lambda: patch_moments(IMAGES.numpy(), 4), TypeError, "torch tensor"),
        (lambda: patch_moments(IMAGES[0], 4), ValueError, "shape"),
        (lambda: patch_moments(IMAGES[:0], 4), ValueError, "at least one image"),
        (lambda: patch_moments(IMAGES[..., :3, :3], 4), ValueError, "patches of 4"),
        (lambda: known_plaintext(IMAGES, IMAGES, patch_size=5), ValueError, "patches of 5"),
        (lambda: known_plaintext(IMAGES, IMAGES, patch_size=0), ValueError, "patch_size"),
        (lambda: known_plaintext(IMAGES, IMAGES, steps="shuffle"), TypeError, r'\("shuffle",\)'),
        (lambda: known_plaintext(IMAGES, IMAGES, steps=("orthogonal", "flip")), ValueError, "alone"),
        (lambda: chosen_image(steps=()), ValueError, "steps"),
        (lambda: ciphertext_only(IMAGES, IMAGES, restarts=0), ValueError, "restarts"),
        (lambda: pgd(model(), IMAGES, LABELS[:, None], **NORM), ValueError, "labels"),
        (lambda: pgd(model(), IMAGES, LABELS, **NORM, steps=0), ValueError, "steps"),
        (lambda: pgd(model(), IMAGES, LABELS, **NORM, eps=8), ValueError, "eps"),
        (lambda: pgd(model(), IMAGES.long(), LABELS, **NORM), TypeError, "uint8"),
        (lambda: square(model(), IMAGES, LABELS, **NORM, queries=0), ValueError, "queries"),
        (lambda: hill_climb(model(), IMAGES, LABELS, **NORM, trials=0), ValueError, "trials"),
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

"""Logits, accuracies, and what they become under correct, wrong and missing keys."""

import pandas as pd
import torch

from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model
from ..lock.patch import PatchCipher


def normalise(images, mean, std, dtype=torch.float32):
    """(v - mean) / std per channel, for images (N, C, H, W), where v in [0, 1] is the float value or uint8 / 255."""
    # mean and std are made in the final type: going through float32 would cost a float64 model nine digits.
    mean, std = (torch.tensor(v, dtype=dtype, device=images.device).view(-1, 1, 1) for v in (mean, std))
    values = images.to(dtype)
    if images.dtype == torch.uint8:
        values /= 255
    return values.sub_(mean).div_(std) if values is not images else (values - mean) / std


@torch.no_grad()
def logits(model, images, *, mean, std, batch_size=500, device=None, autocast=False):
    """The model's logits (N, classes), on the CPU, in the type of the model's parameters.

    Args:
        model: any classifier of normalised images; it is put into eval mode for the call.
        images: (N, C, H, W), uint8 or float in [0, 1].
        mean, std: per channel, of values in [0, 1].
        device: where to compute; by default where the model is. The model is moved there.
        autocast: compute in bfloat16 where that is safe. Quicker, good to about two digits: for accuracies, not
            for exactness.
    """
    was_training = model.training
    parameter = next(model.parameters())
    device = torch.device(device or parameter.device)
    model.to(device).eval()
    found = []
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for batch in images.split(batch_size):
            batch = normalise(batch.to(device), mean, std, parameter.dtype)
            found.append(model(batch.contiguous(memory_format=torch.channels_last)).to(parameter.dtype))
    model.train(was_training)
    return torch.cat(found).cpu()


def accuracy(model, images, labels, *, mean, std, **options):
    """The share, in [0, 1], of images that the model classifies as labelled; ``options`` go to ``logits``."""
    predicted = logits(model, images, mean=mean, std=std, **options).argmax(1)
    return (predicted == labels.cpu()).double().mean().item()


def key_trials(model, data, cipher_settings, n_wrong=10, *, n_images=None, seed=0, **options):
    """Accuracy of a plain model and of its encrypted twin, under correct, wrong and missing keys.

    Args:
        model: a trained plain classifier with a patch embedding.
        data: the Dataset whose first ``n_images`` test images are used (all by default).
        cipher_settings: arguments of PatchCipher without the key, such as dict(patch_size=4, steps=("shuffle",)).
        n_wrong: number of wrong keys.
        seed: the correct key is SecretKey.for_experiment(seed); wrong key i is for_experiment(seed + 1 + i).
        options: go to ``logits`` for the wrong keys; all other cases are computed in the model's own type.

    Returns a tidy DataFrame, one row a case and key, with the columns

        case                  "plain", "correct key", "wrong key", "no key" (plain images into the encrypted model),
                              or "encrypted images into the plain model"
        key_seed              of the key that encrypted the images (-1: none)
        accuracy              in [0, 1]
        n_images
        differ                predictions that differ from the plain model's on plain images
        max_logit_difference  the largest absolute difference of a logit from the plain model's, likewise
    """
    images, labels = data.test_images[:n_images], data.test_labels[:n_images]
    norm = {"mean": data.mean, "std": data.std}
    cipher = PatchCipher(SecretKey.for_experiment(seed), **cipher_settings)
    encrypted_model = encrypt_model(model, cipher, **norm)
    encrypted_images = cipher.encrypt(images)

    plain = logits(model, images, **norm)
    rows = []

    def add(case, key_seed, found):
        rows.append(
            {
                "case": case,
                "key_seed": key_seed,
                "accuracy": (found.argmax(1) == labels).double().mean().item(),
                "n_images": len(labels),
                "differ": (found.argmax(1) != plain.argmax(1)).sum().item(),
                "max_logit_difference": (found - plain).abs().max().item(),
            }
        )

    add("plain", -1, plain)
    add("correct key", seed, logits(encrypted_model, encrypted_images, **norm))
    add("no key", -1, logits(encrypted_model, images, **norm))
    add("encrypted images into the plain model", seed, logits(model, encrypted_images, **norm))
    for wrong_seed in range(seed + 1, seed + 1 + n_wrong):
        # Images encrypted with the wrong key, into the encrypted model: the wrong map folds into the embedding, so
        # that each key costs one forward pass and no encryption of images.
        wrong = decrypt_model(
            encrypted_model, PatchCipher(SecretKey.for_experiment(wrong_seed), **cipher_settings), **norm
        )
        add("wrong key", wrong_seed, logits(wrong, images, **norm, **options))
    return pd.DataFrame(rows)

"""Independent components refine an estimate where covariances say nothing, and only where there are such components."""

import numpy as np
import torch

from cmxlib import PatchCipher, SecretKey
from cmxlib.attacks.higher_order import by_components, independent_components
from cmxlib.attacks.matching import polar, share_recovered

KEY = SecretKey.for_experiment(1)


def sources(rng, n_images, draw):
    """Images (N, 3, 16, 16) whose patches of 2 are orthogonal mixtures of 12 sources of equal variance."""
    mixing = polar(np.random.default_rng(5).standard_normal((12, 12)))
    values = draw(rng, (n_images * 64, 12)) @ mixing.T
    grid = torch.from_numpy(values).float().view(n_images, 8, 8, 3, 2, 2)
    return 0.5 + 0.01 * grid.permute(0, 3, 1, 4, 2, 5).reshape(n_images, 3, 16, 16)


def shares(draw):
    """Of an estimate before and after."""
    cipher = PatchCipher(KEY, 2, steps=("orthogonal",))
    near = polar(cipher.matrix()[0] + 0.15 * np.random.default_rng(3).standard_normal((12, 12)))
    estimate = PatchCipher.from_affine(near, np.zeros(12), 2, 3)
    public, victims = (sources(np.random.default_rng(seed), 300, draw) for seed in (0, 1))
    found = by_components(cipher.encrypt(victims), independent_components(public, 2), estimate, 2)
    return share_recovered(estimate, cipher), share_recovered(found, cipher)


def test_peaked_sources_tell_the_directions_that_covariances_cannot():
    before, after = shares(lambda rng, shape: rng.laplace(size=shape))
    assert before < 0.9 and after > 0.97


def test_normal_sources_tell_nothing():
    before, after = shares(lambda rng, shape: rng.standard_normal(shape))
    assert after < before

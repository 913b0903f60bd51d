"""PSNR and SSIM."""

import numpy as np
import pytest
import torch

from cmxlib.attacks.metrics import psnr, ssim

IMAGES = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_equal_images():
    assert np.isinf(psnr(IMAGES, IMAGES)).all()
    assert np.allclose(ssim(IMAGES, IMAGES), 1)


def test_known_values():
    black, grey = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1)
    assert np.allclose(psnr(black, grey), 20)  # a mean squared difference of 0.01
    assert (psnr(IMAGES, IMAGES.float() / 255) > 140).all()  # float32 values of the same bytes
    assert ssim(IMAGES, IMAGES.flip(0)).shape == (3,)
    assert abs(ssim(IMAGES[:1], IMAGES[1:2])[0]) < 0.2  # independent noise


def test_each_image_is_measured_by_itself():
    assert np.allclose(ssim(IMAGES, IMAGES.flip(0))[0], ssim(IMAGES[:1], IMAGES[2:]))
    assert np.allclose(psnr(IMAGES, IMAGES.flip(0))[0], psnr(IMAGES[:1], IMAGES[2:]))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        psnr(IMAGES, IMAGES[:1])
    with pytest.raises(ValueError, match="one shape"):
        ssim(IMAGES[0], IMAGES[0])

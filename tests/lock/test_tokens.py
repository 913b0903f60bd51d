"""Position embeddings: they take the offset that an embedding without a bias cannot, and let patches change places."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from cmxlib import ConvMixer, PatchCipher, SecretKey, decrypt_model, encrypt_model, key_trials, logits
from cmxlib.learn.data import Dataset
from cmxlib.learn.evaluate import normalise
from cmxlib.lock.blocks import BlockCipher
from cmxlib.lock.norm import statistics_of

KEY = SecretKey.for_experiment(7)
UNEQUAL = {"mean": (0.49, 0.41, 0.45), "std": (0.25, 0.2, 0.31)}
SMALL = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2, "num_classes": 5}


def small(name, dtype=torch.float64, **changes):
    """A small model of timm whose parameters are all random, so that none of them is left out of what is computed."""
    torch.manual_seed(3)
    net = timm.create_model(name, **{**SMALL, **changes}).to(dtype).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def images(height=32, width=32):
    return torch.rand(3, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def check(net, cipher, x, most=1e-9, norm=UNEQUAL):
    encrypted = encrypt_model(net, cipher, **norm)
    plain = logits(net, x, **norm)
    scale = plain.abs().max()
    assert (logits(encrypted, cipher.encrypt(x), **norm) - plain).abs().max() <= most * scale
    assert (logits(decrypt_model(encrypted, cipher, **norm), x, **norm) - plain).abs().max() <= most * scale
    assert (logits(encrypted, x, **norm) - plain).abs().max() > 0.01 * scale
    return encrypted


@pytest.mark.parametrize("dtype, most", [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_clip_keeps_its_parameters(dtype, most):
    net = small("vit_base_patch16_clip_224", dtype)
    assert net.patch_embed.proj.bias is None
    encrypted = check(net, PatchCipher(KEY, 16), images(), most)
    # What is built anew, as from_pretrained does, loads all of it.
    anew = timm.create_model("vit_base_patch16_clip_224", **SMALL).to(dtype).eval()
    anew.load_state_dict(encrypted.state_dict())
    assert torch.equal(logits(anew, images(), **UNEQUAL), logits(encrypted, images(), **UNEQUAL))
    before = net.state_dict()
    changed = {name for name, value in encrypted.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"patch_embed.proj.weight", "pos_embed"}
    assert torch.equal(encrypted.pos_embed[:, 0], net.pos_embed[:, 0])  # the class token's


def test_an_encrypted_model_is_exported_as_it_is():
    cipher = PatchCipher(KEY, 16)
    encrypted = encrypt_model(small("vit_base_patch16_clip_224"), cipher, **UNEQUAL)
    x = normalise(cipher.encrypt(images()), **UNEQUAL, dtype=torch.float64)
    with torch.no_grad():
        expected = encrypted(x)
        assert torch.allclose(torch.export.export(encrypted, (x,)).module()(x), expected, 1e-9, 1e-9)
        assert torch.allclose(torch.compile(encrypted, backend="aot_eager")(x), expected, 1e-9, 1e-9)


BLOCKS = [
    ("vit_tiny_patch16_224", 16, (32, 32)),
    ("vit_tiny_patch16_224", 16, (32, 64)),
    ("vit_base_patch16_clip_224", 16, (32, 32)),
    ("deit_tiny_distilled_patch16_224", 16, (32, 32)),
    ("vit_small_patch14_reg4_dinov2", 14, (42, 28)),
]


@pytest.mark.parametrize("name, patch, size", BLOCKS)
def test_patches_change_places(name, patch, size):
    cipher = BlockCipher(KEY, patch, image_size=size)
    net = small(name, img_size=size)
    encrypted = check(net, cipher, images(*size))
    others = net.pos_embed.shape[1] - len(cipher.places)
    assert torch.equal(encrypted.pos_embed[:, :others], net.pos_embed[:, :others])


def test_patches_change_places_in_torchvision():
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    check(net, BlockCipher(KEY, 8, steps=(), image_size=32), images())


def swin():
    small_swin = {"img_size": 32, "window_size": 4, "depths": (1,), "embed_dim": 8, "num_heads": (2,)}
    return timm.create_model("swin_tiny_patch4_window7_224", **small_swin).double().eval()


@pytest.mark.parametrize(
    "make, patch, message",
    [
        (lambda: ConvMixer(dim=8, depth=1, patch_size=4).double().eval(), 4, "none for 64 patches"),
        (swin, 4, "none for 64 patches"),
        (lambda: small("eva02_tiny_patch14_224", img_size=28), 14, "position embeddings alone do not undo"),
        (lambda: small("vit_tiny_patch16_224"), 8, "patches of 8 pixels, but the model's have 16"),
        (lambda: small("vit_tiny_patch16_224", img_size=64), 16, "cannot be run on images of 32 x 32"),
    ],
)
def test_where_patches_cannot_change_places_it_is_said(make, patch, message):
    size = 28 if patch == 14 else 32
    with pytest.raises(ValueError, match=message) as caught:
        encrypt_model(make(), BlockCipher(KEY, patch, image_size=size), **UNEQUAL)
    assert "\n" not in str(caught.value)


class NormalisedPatches(nn.Module):
    """No bias, and a normalisation between the embedding and the position embeddings, which would change an offset."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 8, 16, stride=16, bias=False), nn.LayerNorm(8)
        self.pos_embed, self.head = nn.Parameter(torch.randn(1, 4, 8)), nn.Linear(8, 5)

    def forward(self, x):
        return self.head((self.norm(self.embed(x).flatten(2).mT) + self.pos_embed).tanh().mean(1))


def test_an_offset_that_would_not_arrive_is_refused():
    net = NormalisedPatches().double().eval()
    with pytest.raises(ValueError, match="give the embedding a bias"):
        encrypt_model(net, PatchCipher(KEY, 16), **UNEQUAL)
    check(net, PatchCipher(KEY, 16, steps=("shuffle",)), images(), norm={"mean": (0.4,) * 3, "std": (0.3,) * 3})


def test_blocks_move_whole_patches_and_images_come_back():
    cipher = BlockCipher(KEY, 4, steps=(), image_size=(8, 12))
    x = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8)
    hidden = cipher.encrypt(x)
    for i, place in enumerate(cipher.places):
        (row, column), (there, along) = divmod(i, 3), divmod(int(place), 3)
        patch = hidden[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(patch, x[:, :, 4 * there : 4 * there + 4, 4 * along : 4 * along + 4])
    assert torch.equal(cipher.decrypt(hidden), x) and not torch.equal(hidden, x)
    assert torch.equal(cipher.encrypt(x[0]), hidden[0])
    # Whoever stored encrypted images must be able to decrypt them.
    assert BlockCipher(KEY, 16, image_size=64).places.tolist() == PINNED
    with pytest.raises(ValueError, match="these are 12 x 8"):
        cipher.encrypt(x.mT)
    with pytest.raises(ValueError, match="do not divide images of 32 x 30"):
        BlockCipher(KEY, 4, image_size=(32, 30))


PINNED = [13, 6, 5, 12, 0, 4, 9, 1, 15, 10, 2, 14, 3, 8, 11, 7]


def test_key_trials_of_blocks():
    x = (images() * 255).byte()
    data = Dataset("toy", x, torch.arange(3), x, torch.arange(3), tuple("abcde"), **UNEQUAL)
    found = key_trials(small("vit_tiny_patch16_224"), data, lambda key: BlockCipher(key, 16, image_size=32), 1)
    assert (found[found.case == "correct key"].max_logit_difference < 1e-9).all()
    assert (found[found.case == "wrong key"].max_logit_difference > 0.01).all()


class Processor:
    """As an image processor of transformers says it."""

    image_mean, image_std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.1]


def test_statistics_are_read_where_they_are_said():
    net = small("vit_base_patch16_clip_224")
    said = statistics_of(net)
    assert np.allclose(said["mean"], net.pretrained_cfg["mean"]) and said["mean"][0] == pytest.approx(0.481, abs=1e-3)
    assert statistics_of(torchvision.models.ViT_B_16_Weights.DEFAULT)["std"] == (0.229, 0.224, 0.225)
    assert statistics_of(Processor()) == {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}
    cipher = PatchCipher(KEY, 16)
    assert torch.equal(encrypt_model(net, cipher).pos_embed, encrypt_model(net, cipher, **said).pos_embed)
    with pytest.raises(ValueError, match="give mean= and std="):
        encrypt_model(ConvMixer(dim=8, depth=1, patch_size=4), PatchCipher(KEY, 4))
    with pytest.raises(ValueError, match="belong together"):
        encrypt_model(net, cipher, mean=(0.5,) * 3)


def test_a_cipher_is_made_of_places_that_are_given():
    cipher, x = BlockCipher(KEY, 16, image_size=32), images()
    same = BlockCipher.from_places(cipher.patches, cipher.places, 32)
    assert torch.equal(same.encrypt(x), cipher.encrypt(x)) and torch.allclose(same.decrypt(cipher.encrypt(x)), x)
    with pytest.raises(ValueError, match="number of each of the 4 patches of an image once"):
        BlockCipher.from_places(cipher.patches, [0, 1, 2, 2], 32)

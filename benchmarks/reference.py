"""The plain way of doing things, which every benchmark is measured against. Nothing else uses it."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


def stock(model):
    """A copy of a ConvMixer as a plain ``nn.Sequential`` of torch's own modules."""
    return nn.Sequential(*copy.deepcopy(model))


def train_step(model, optimizer, images, labels):
    """One eager step in float32 on a normalised batch (N, 3, H, W)."""
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
    optimizer.step()


class _PILImages(Dataset):
    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def loader(data, batch_size, crop_padding=4, workers=2):
    """Batches as the reference recipe makes them: PIL transforms, image by image, in a DataLoader's workers."""
    from torchvision import transforms  # slow to import, and needed here only

    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(32, padding=crop_padding),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    images = _PILImages(data.train_images, data.train_labels, transform)
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers, drop_last=True)


def encrypt(images, permutation, flipped, block_size):
    """Shuffle and flip images (N, C, H, W), floats in [0, 1]: reshape, permute, index, reshape back."""
    n, c, h, w = images.shape
    b = block_size
    blocks = images.reshape(n, c, h // b, b, w // b, b).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * b * b)
    blocks = blocks[..., torch.from_numpy(permutation)]
    blocks = torch.where(torch.from_numpy(flipped), 1 - blocks, blocks)
    return blocks.reshape(n, h // b, w // b, c, b, b).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)

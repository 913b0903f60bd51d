"""The plain network: data, training, and what a trained network gives.

data            Dataset, any labelled images; load_dataset; channel_statistics
cifar10         the files of CIFAR-10 and CIFAR-100, found, checked and decoded, or downloaded
folder          images of one's own, in a folder for each class
fontdigits      a small data set that is drawn
augment         shifts, mirror images and RandAugment of whole batches
convmixer       ConvMixer, the network of the book; engine: how it computes on a CPU
train           TrainSettings, and fit, the one training loop
ranks           the same by several processes, as torchrun starts them
checkpoint      files of trainings and of trained models
evaluate        logits, accuracy, and trials of keys
device          which machine this is

**Images** are uint8 tensors (N, C, H, W) with values 0 to 255, or floating ones in [0, 1]; ``mean`` and ``std`` are per
channel, of values in [0, 1]. **A model** is any ``nn.Module`` that takes normalised images and gives logits (N,
classes), or an object whose ``logits`` are that. What a function is given is checked by ``lock.checks``, so that it
raises rather than give a wrong number.

**To use images of your own**, call ``load_dataset("folder", root=..., size=...)``, or make a ``Dataset`` of tensors,
which checks them. **To add a data set**, have ``load_dataset`` know its name; it is cached by ``_cached``. **To add a
change to the training**, give it a field in ``TrainSettings``, so that checkpoints and recorded rows know it. Where the
module needs more than torch and numpy, ``paths.need`` imports it inside the function and names the extra that it is in.
"""

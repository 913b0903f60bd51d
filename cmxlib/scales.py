"""The one dial: what "quick", "small" and "paper" mean."""

from dataclasses import dataclass, field, replace

from .train import TrainSettings


@dataclass(frozen=True)
class Scale:
    """A size of the study.

    name: "quick" (embedded data, seconds), "small" (CIFAR-10, minutes on two cores) or "paper" (the full recipe).
    dataset: a name for load_dataset.
    model: arguments of ConvMixer.
    train: how it is trained.
    n_wrong: wrong keys per key setting.
    """

    name: str
    dataset: str
    model: dict = field(hash=False)
    train: TrainSettings
    n_wrong: int

    def with_patch_size(self, patch_size: int) -> "Scale":
        """The same study with another patch size of the network."""
        return replace(self, model={**self.model, "patch_size": patch_size})


SCALES = {
    "quick": Scale(
        name="quick",
        dataset="fontdigits",
        model={"dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=8, batch_size=64, flip=False, crop_padding=2),
        n_wrong=20,
    ),
    "small": Scale(
        name="small",
        dataset="cifar10",
        model={"dim": 128, "depth": 8, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=15),
        n_wrong=100,
    ),
    "paper": Scale(
        name="paper",
        dataset="cifar10",
        model={"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 4},
        train=TrainSettings(epochs=40),
        n_wrong=200,
    ),
}

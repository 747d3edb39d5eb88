"""The network."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class SmallConvNet(nn.Module):
    """A plain convolutional network for small RGB images: as much as a laptop trains while you wait.

    (B, 3, H, W) in 0..1, H and W at least 8 -> (B, K) logits. Three stages of convolution 3x3, batch norm,
    ReLU and pooling by two, then the mean over places and one linear layer: 93,472 + 129 K parameters.
    """

    def __init__(self, categories: int, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(_stage(come, go) for come, go in pairwise((3, *widths))))
        self.head = nn.Linear(widths[-1], categories)

    def forward(self, images: Tensor) -> Tensor:
        # Centred here, not by the caller: whoever perturbs an image does so in the pixels' own units.
        maps: Tensor = self.stages((images - 0.5) / 0.25)
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


def _stage(come: int, go: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(come, go, kernel_size=3, padding=1, bias=False),  # the norm after it has a bias
        nn.BatchNorm2d(go),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )

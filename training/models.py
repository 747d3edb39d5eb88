"""The networks: a small one for a laptop, and the three of the published protocol.

All take (B, 3, H, W) in 0..1 and answer with (B, K) logits. Each centres its input itself: whoever perturbs an
image does so in the pixels' own units.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from training.convolutions import Convolution


def centred(images: Tensor) -> Tensor:
    """0..1 -> about -2..2."""
    return (images - 0.5) / 0.25


class SmallConvNet(nn.Module):
    """A plain convolutional network for small RGB images: as much as a laptop trains while you wait.

    H and W at least 8. Three stages of convolution 3x3, batch norm, ReLU and pooling by two, then the mean over
    places and one linear layer: 93,472 + 129 K parameters.
    """

    def __init__(self, categories: int, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(_stage(come, go) for come, go in pairwise((3, *widths))))
        self.head = nn.Linear(widths[-1], categories)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.stages(centred(images))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


def _stage(come: int, go: int) -> nn.Module:
    return nn.Sequential(
        Convolution(come, go, bias=False),  # the norm after it has a bias
        nn.BatchNorm2d(go),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class Vgg11(nn.Module):
    """VGG-11 with batch norm and one linear layer (after Simonyan & Zisserman 2015): the protocol's default.

    H and W at least 32. 9,225,984 + 513 K parameters.
    """

    STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))

    def __init__(self, categories: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        come = 3
        for stage in self.STAGES:
            for go in stage:
                # The bias adds nothing before a norm; the published count has it.
                layers += [Convolution(come, go), nn.BatchNorm2d(go), nn.ReLU(inplace=True)]
                come = go
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(come, categories)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(centred(images))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """Two convolutions 3x3 beside a shortcut (He et al. 2016).

    Where shapes change the shortcut is a strided convolution 1x1 with norm (``projection``, their option B), or takes
    every other place and fills new channels with zeros (option A).
    """

    def __init__(self, come: int, go: int, stride: int, *, projection: bool, bias: bool) -> None:
        super().__init__()
        self.first = Convolution(come, go, stride=stride, bias=bias)
        self.first_norm = nn.BatchNorm2d(go)
        self.second = Convolution(go, go, bias=bias)
        self.second_norm = nn.BatchNorm2d(go)
        self.stride, self.added = stride, go - come
        self.shortcut: nn.Module | None = None
        if projection and (stride > 1 or self.added):
            self.shortcut = nn.Sequential(
                nn.Conv2d(come, go, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(go)
            )

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(maps)))
        inner = self.second_norm(self.second(inner))
        if self.shortcut is not None:
            maps = self.shortcut(maps)
        elif self.stride > 1 or self.added:
            maps = F.pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(inner + maps)


class ResNet(nn.Module):
    """Stages of ``blocks`` residual blocks each, ``widths`` channels wide; from the second on they halve the sides."""

    def __init__(self, categories: int, widths: tuple[int, ...], blocks: int, *, projection: bool, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Convolution(3, widths[0], bias=bias),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        layers = []
        come = widths[0]
        for number, go in enumerate(widths):
            for block in range(blocks):
                stride = 2 if number and not block else 1
                layers.append(ResidualBlock(come, go, stride, projection=projection, bias=bias))
                come = go
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(come, categories)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.stages(self.stem(centred(images)))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


def resnet18(categories: int) -> ResNet:
    """ResNet-18 for small images: 11,173,962 parameters at K = 10."""
    return ResNet(categories, (64, 128, 256, 512), 2, projection=True, bias=False)


def resnet34a(categories: int) -> ResNet:
    """What Uma et al. (2020) call ResNet-34A: He et al.'s CIFAR network of 44 layers, option A; 660,170 at K = 10."""
    return ResNet(categories, (16, 32, 64), 7, projection=False, bias=True)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "small": SmallConvNet,
    "vgg11": Vgg11,
    "resnet18": resnet18,
    "resnet34a": resnet34a,
}
"""By name: from the number of categories to a network with random first weights (torch's global generator)."""


def parameters_of(network: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

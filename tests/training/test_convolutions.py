from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.conftest import labelled_images
from training import convolutions
from training.config import PRESETS, Config
from training.convolutions import Convolution
from training.data import as_network_input
from training.models import NETWORKS
from training.train import Training


def pair(*, bias: bool = True, stride: int = 1) -> tuple[Convolution, nn.Conv2d]:
    """The same weights twice: as products, and as torch has them."""
    torch.manual_seed(1)
    ours = Convolution(6, 5, bias=bias, stride=stride)
    ours.as_products = True
    theirs = nn.Conv2d(6, 5, kernel_size=3, padding=1, bias=bias, stride=stride)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def asked(layer: nn.Module, maps: Tensor) -> tuple[Tensor, ...]:
    """What it answers, and the gradients by maps and weights of a sum that weighs each answer differently."""
    maps = maps.clone().requires_grad_()
    found = layer(maps)
    weights = torch.linspace(-1, 2, found.numel(), dtype=torch.float64).view(found.shape)
    return found.detach(), *torch.autograd.grad((found.double() * weights).sum(), (maps, *layer.parameters()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (2, 2), (1, 1), (3, 5), (8, 2)])
def test_a_product_is_the_convolution_and_has_its_gradients(
    size: tuple[int, int], bias: bool, layout: torch.memory_format
) -> None:
    ours, theirs = (layer.double().to(memory_format=layout) for layer in pair(bias=bias))  # type: ignore[call-overload]
    maps = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout)
    for mine, other in zip(asked(ours, maps), asked(theirs, maps), strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_under_autocast_it_computes_in_bf16_and_keeps_gradients_of_weights_in_float32() -> None:
    ours, theirs = pair()
    maps = torch.randn(4, 6, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mine, other = asked(ours, maps), asked(theirs, maps)
    exact = asked(theirs.double(), maps.double())
    assert [each.dtype for each in mine] == [each.dtype for each in other] == [torch.bfloat16] + [torch.float32] * 3
    for found, right in zip(mine, exact, strict=True):
        # bf16 has eight digits in base two.
        assert float((found.double() - right).norm()) < 2**-7 * float(right.norm())


@pytest.mark.parametrize(
    ("size", "stride", "training", "as_products", "expected"),
    [
        (4, 1, True, True, True),
        (8, 1, True, True, False),
        (4, 2, True, True, False),
        (4, 1, False, True, False),
        (4, 1, True, False, False),
    ],
)
def test_products_are_for_small_maps_in_training_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, size: int, stride: int, training: bool, as_products: bool, expected: bool
) -> None:
    seen = []

    class Watched:
        @staticmethod
        def apply(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            seen.append(maps)
            return F.conv2d(maps, weight, bias, padding=1)

    monkeypatch.setattr(convolutions, "_AsProducts", Watched)
    ours, theirs = pair(stride=stride)
    ours.train(training).as_products = as_products
    maps = torch.randn(2, 6, size, size)
    assert torch.equal(ours(maps), theirs(maps))
    assert bool(seen) == expected


def test_the_weights_go_where_the_published_loop_takes_them() -> None:
    images = labelled_images(8)
    config = Config(**{**PRESETS["protocol"], "batch_size": 4, "threads": 1, "augmentation": "none"})
    torch.manual_seed(5)
    first = NETWORKS["vgg11"](10)
    ours = Training(copy.deepcopy(first), images.pixels, images.soft_labels, config)
    assert any(isinstance(module, Convolution) and module.as_products for module in ours.model.modules())
    ours.epoch()

    # The published loop: channels first, torch's own convolutions and optimiser, one tensor after the other.
    plain = copy.deepcopy(first).train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=False, fused=False)
    soft = torch.from_numpy(images.soft_labels).float()
    inputs = as_network_input(torch.from_numpy(images.pixels)).contiguous()
    order = torch.from_numpy(np.random.default_rng([config.seed, 0]).permutation(8))
    for rows in order.split(4):
        loss = -(F.log_softmax(plain(inputs[rows]), dim=1) * soft[rows]).sum() / len(rows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()

    for (key, mine), other, begun in zip(
        ours.model.named_parameters(), plain.parameters(), first.parameters(), strict=True
    ):
        apart, moved = float((mine - other).detach().norm()), float((other - begun).detach().norm())
        # A bias before a norm changes nothing: its gradient is rounding alone.
        assert apart < 1e-3 * moved or moved < 1e-5, key

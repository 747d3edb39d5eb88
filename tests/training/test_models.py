from __future__ import annotations

import pytest
import torch

from training.models import SmallConvNet


@pytest.mark.parametrize(("categories", "parameters"), [(10, 94_762), (2, 93_730)])
def test_the_network_is_as_small_as_it_says(categories: int, parameters: int) -> None:
    assert sum(p.numel() for p in SmallConvNet(categories).parameters()) == parameters
    assert parameters == 93_472 + 129 * categories


@pytest.mark.parametrize("side", [8, 32, 48])
def test_it_gives_a_logit_per_category_whatever_the_size(side: int) -> None:
    assert SmallConvNet(7)(torch.rand(3, 3, side, side)).shape == (3, 7)


def test_it_learns_from_a_batch_of_one() -> None:
    network = SmallConvNet(4)
    network.train()
    network(torch.rand(1, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())

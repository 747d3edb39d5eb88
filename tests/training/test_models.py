from __future__ import annotations

import pytest
import torch

from training.config import CHOICES
from training.models import NETWORKS, SmallConvNet, parameters_of


@pytest.mark.parametrize(("categories", "parameters"), [(10, 94_762), (2, 93_730)])
def test_the_network_is_as_small_as_it_says(categories: int, parameters: int) -> None:
    assert sum(p.numel() for p in SmallConvNet(categories).parameters()) == parameters
    assert parameters == 93_472 + 129 * categories


@pytest.mark.parametrize("side", [8, 32, 48])
def test_it_gives_a_logit_per_category_whatever_the_size(side: int) -> None:
    assert SmallConvNet(7)(torch.rand(3, 3, side, side)).shape == (3, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vgg11", 9_231_114), ("resnet18", 11_173_962), ("resnet34a", 660_170), ("small", 94_762)],
)
def test_the_networks_have_their_published_numbers_of_parameters(name: str, parameters: int) -> None:
    assert parameters_of(NETWORKS[name](10)) == parameters


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "resnet34a"])
def test_the_published_networks_answer_with_a_logit_per_category_and_learn(name: str) -> None:
    network = NETWORKS[name](6)
    logits = network(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 6)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(
    ("block", "come", "go"),
    [(0, (16, 32, 32), (16, 32, 32)), (7, (16, 32, 32), (32, 16, 16)), (14, (32, 16, 16), (64, 8, 8))],
)
def test_a_stage_of_the_residual_network_begins_by_halving_the_sides(
    block: int, come: tuple[int, ...], go: tuple[int, ...]
) -> None:
    inner = NETWORKS["resnet34a"](10).get_submodule(f"stages.{block}")
    assert tuple(inner(torch.rand(1, *come)).shape[1:]) == go


def test_the_command_line_knows_the_networks() -> None:
    assert set(CHOICES["network"]) == set(NETWORKS)


def test_it_learns_from_a_batch_of_one() -> None:
    network = SmallConvNet(4)
    network.train()
    network(torch.rand(1, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())

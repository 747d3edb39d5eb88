from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.conftest import labelled_images
from training.attacks import EPSILON, attack, fgsm, pgd
from training.models import SmallConvNet


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(5, 3, 8, 8, generator=random), torch.rand(5, 4, generator=random).softmax(1)


def test_one_step_goes_along_the_signs_of_the_gradient_worked_by_hand(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    (images, targets), model = batch, linear()
    weight = model.get_parameter("1.weight").detach()
    gradient = ((model(images).softmax(1) - targets).detach() @ weight).reshape(images.shape)
    expected = (images + EPSILON * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(model, images, targets), expected)


def test_many_steps_stay_within_reach_and_hurt_more_than_the_start(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    (images, targets), model = batch, linear()
    moved = pgd(model, images, targets, torch.Generator().manual_seed(0))
    assert float((moved - images).abs().max()) <= EPSILON + 1e-6
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    corner = fgsm(model, images, targets)
    with torch.no_grad():
        before, after, best = (float(F.cross_entropy(model(x), targets)) for x in (images, moved, corner))
    assert after > before
    # Of a linear network the best move is a corner, which enough steps reach.
    assert after == pytest.approx(best, abs=5e-3)


def test_the_first_images_are_attacked_and_the_same_seed_moves_them_alike() -> None:
    images = labelled_images(12)
    torch.manual_seed(0)
    model = SmallConvNet(10, widths=(4, 4))
    model.train()
    found = attack(model, images, "cpu", most=7, seed=3, batch_size=4)
    assert {name: each.images for name, each in found.items()} == {"fgsm": 7, "pgd": 7}
    assert found == attack(model, images.select(np.arange(7)), "cpu", seed=3, batch_size=4)
    assert found["pgd"] != attack(model, images, "cpu", most=7, seed=4, batch_size=4)["pgd"]
    assert model.training

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elicit.labels import Refusal
from tests.training.conftest import labelled_images
from training import train as module
from training.config import Config
from training.data import LabelledImages
from training.evaluate import evaluate, predict
from training.label_sets import Targets
from training.models import SmallConvNet
from training.train import (
    CROP,
    Epoch,
    Training,
    compare_labels,
    crop,
    draw_crops,
    pad,
    steps_down,
    targets_of,
    train,
    warm_up_then_cosine,
)

QUICK = Config(epochs=2, batch_size=8, threads=1)


class Watched(nn.Module):
    """A linear network that remembers the batches it was trained on."""

    def __init__(self, categories: int = 10) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, categories)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.head.weight, std=0.01, generator=torch.Generator().manual_seed(3))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images.clone())
        logits: Tensor = self.head(images.flatten(1))
        return logits


def ignore(line: str) -> None:
    """Nobody reads the progress."""


def test_a_step_follows_the_gradient_of_the_soft_cross_entropy_worked_by_hand() -> None:
    images, network = labelled_images(6), Watched()
    weight, bias = (p.detach().double().numpy() for p in (network.head.weight, network.head.bias))
    config = Config(epochs=1, batch_size=6, lr=0.1, momentum=0.5, weight_decay=0, augmentation="none")
    epochs = list(train(network, images.pixels, images.soft_labels, config))

    inputs = images.pixels.transpose(0, 3, 1, 2).reshape(6, -1) / 255
    logits = inputs @ weight.T + bias
    predicted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = (predicted - images.soft_labels) / 6  # of the mean over the batch, by the logits
    # Nesterov's first step looks ahead by one momentum: (1 + momentum) times the gradient.
    step = 0.1 * 1.5
    np.testing.assert_allclose(network.head.bias.detach(), bias - step * gradient.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(network.head.weight.detach(), weight - step * gradient.T @ inputs, atol=1e-6)
    loss = -(images.soft_labels * np.log(predicted)).sum(axis=1).mean()
    (epoch,) = epochs
    assert epoch.number == 1
    assert epoch.learning_rate == pytest.approx(0.1)
    assert epoch.train_loss == pytest.approx(loss, abs=1e-6)


def test_the_targets_are_what_people_said_the_archives_class_or_peoples_likeliest() -> None:
    images = replace(labelled_images(2), soft_labels=np.tile([0.2, 0.5, 0.3] + [0.0] * 7, (2, 1)))
    np.testing.assert_array_equal(targets_of(images, "soft"), images.soft_labels)
    assert targets_of(images, "hard").argmax(axis=1).tolist() == [0, 1]
    assert targets_of(images, "top").argmax(axis=1).tolist() == [1, 1]
    assert targets_of(images, "top").sum() == targets_of(images, "hard").sum() == 2
    with pytest.raises(ValueError, match="medium"):
        targets_of(images, "medium")


def test_the_runs_see_the_same_images_cropped_alike() -> None:
    images, seen = labelled_images(20), []
    for run in ("soft", "hard"):
        network = Watched()
        list(train(network, images.pixels, targets_of(images, run), QUICK))
        seen.append(network.seen)
    assert len(seen[0]) == 6
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_an_image_is_cropped_and_flipped_anew_in_each_epoch() -> None:
    network = Watched()
    images = labelled_images(1)
    list(train(network, images.pixels, images.soft_labels, Config(epochs=12)))
    assert len({image.numpy().tobytes() for image in network.seen}) > 8


def test_every_crop_is_a_window_of_its_padded_image_flipped_or_not() -> None:
    random = torch.Generator().manual_seed(0)
    padded = torch.randint(256, (3, 6 + 2 * CROP, 5 + 2 * CROP, 3), generator=random, dtype=torch.uint8)
    crops = draw_crops(3, "crop+flip", np.random.default_rng(0))
    rows = torch.tensor([2, 0, 1])
    assert set(crops[:, 2].tolist()) == {0, 1}
    for row, cut in zip(rows.tolist(), crop(padded, rows, crops[rows]), strict=True):
        top, left, mirrored = crops[row].tolist()
        window = padded[row, top : top + 6, left : left + 5]
        assert torch.equal(cut, window.flip(1) if mirrored else window)


def test_every_place_of_a_crop_is_drawn_about_as_often() -> None:
    crops = draw_crops(9000, "crop+flip", np.random.default_rng(1)).numpy()
    for column, places in enumerate((2 * CROP + 1, 2 * CROP + 1, 2)):
        counts = np.bincount(crops[:, column], minlength=places)
        assert len(counts) == places
        assert counts.min() > 0.8 * 9000 / places


def test_beyond_its_edges_an_image_is_mirrored_or_black() -> None:
    pixels = np.arange(1, 1 + 2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)
    mirrored, black = (pad(pixels, padding).numpy() for padding in ("reflect", "zeros"))
    for padded in (mirrored, black):
        assert padded.shape == (2, 6 + 2 * CROP, 5 + 2 * CROP, 3)
        np.testing.assert_array_equal(padded[:, CROP:-CROP, CROP:-CROP], pixels)
    np.testing.assert_array_equal(mirrored[:, CROP - 1, CROP:-CROP], pixels[:, 1])
    assert black.astype(int).sum() == pixels.astype(int).sum()


def test_a_network_is_shown_black_edges_where_the_setting_says_zeros() -> None:
    images = labelled_images(1)
    white = np.full_like(images.pixels, 255)
    darkest = {}
    for padding in ("reflect", "zeros"):
        network = Watched()
        list(train(network, white, images.soft_labels, Config(epochs=4, threads=1, padding=padding)))
        darkest[padding] = float(torch.cat(network.seen).min())
    assert darkest == {"reflect": 1.0, "zeros": 0.0}


def test_without_augmentation_the_images_are_themselves() -> None:
    padded = torch.arange(2 * 12 * 12 * 3).reshape(2, 12, 12, 3).to(torch.uint8)
    plain = crop(padded, torch.tensor([1]), draw_crops(2, "none", np.random.default_rng(0))[1:])
    assert torch.equal(plain, padded[1:, CROP:-CROP, CROP:-CROP])


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    rates = [warm_up_then_cosine(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) > 0.97
    assert np.argmax(rates) == 9
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 1e-3
    assert warm_up_then_cosine(0, 1) == 1


def test_the_published_schedule_falls_twice_near_the_end() -> None:
    rates = [steps_down(done, 65) for done in range(65)]
    assert rates == [1.0] * 51 + [0.1] * 5 + [0.01] * 9
    assert [steps_down(done, 13) for done in range(13)] == [1.0] * 11 + [0.1, 0.01]


def test_a_step_of_the_published_protocol_clips_the_gradient_and_has_plain_momentum() -> None:
    images, network = labelled_images(6), Watched()
    before = network.head.bias.detach().clone()
    config = Config(epochs=1, batch_size=6, lr=0.1, schedule="steps", weight_decay=0, clip=1e-3, augmentation="none")
    list(train(network, images.pixels, images.soft_labels, config))
    first = Watched()
    gaps = [(p - q).detach() for p, q in zip(network.parameters(), first.parameters(), strict=True)]
    # The single epoch of one is in the schedule's highest part; plain momentum takes the first step as it is.
    assert float(nn.utils.get_total_norm(gaps)) == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert not torch.equal(network.head.bias, before)


def test_a_network_taken_up_again_goes_exactly_where_it_would_have_gone() -> None:
    images = labelled_images(20)
    config = Config(epochs=4, batch_size=8, threads=1)

    def network() -> SmallConvNet:
        torch.manual_seed(2)
        return SmallConvNet(10, widths=(8, 8))

    through = Training(network(), images.pixels, images.soft_labels, config)
    whole = [through.epoch() for _ in range(4)]
    first = Training(network(), images.pixels, images.soft_labels, config)
    parts = [first.epoch(), first.epoch()]
    torch.manual_seed(99)  # whatever was drawn in between
    second = Training(SmallConvNet(10, widths=(8, 8)), images.pixels, images.soft_labels, config)
    second.take_up(copy.deepcopy(first.state()))
    parts += [second.epoch(), second.epoch()]
    assert parts == whole
    ours, theirs = second.model.state_dict(), through.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_labels_that_are_drawn_are_drawn_anew_in_each_epoch() -> None:
    class Counted(Targets):
        def draw(self, random: np.random.Generator) -> NDArray[np.float64]:
            drawn.append(super().draw(random))
            return drawn[-1]

    drawn: list[NDArray[np.float64]] = []
    images = labelled_images(10)
    lengths = np.full(10, 2)
    own = np.eye(10)[np.stack([images.hard_labels, (images.hard_labels + 1) % 10], axis=1).ravel()]
    targets = Counted(images.soft_labels, own, np.arange(0, 20, 2), lengths)
    list(train(Watched(), images.pixels, targets, Config(epochs=8, threads=1)))
    assert len({d.tobytes() for d in drawn}) > 6
    share = np.mean([d[np.arange(10), images.hard_labels] for d in drawn])
    assert 0.3 < share < 0.7


def test_bf16_is_measured_before_it_is_taken() -> None:
    images = labelled_images(8)
    plain = Training(Watched(), images.pixels, images.soft_labels, Config(threads=1))
    assert plain.precision == "float32"
    half = Training(Watched(), images.pixels, images.soft_labels, Config(threads=1, precision="bf16", epochs=1))
    assert half.precision == "bf16"
    assert np.isfinite(half.epoch().train_loss)
    measured = Training(Watched(), images.pixels, images.soft_labels, Config(threads=1, precision="auto"))
    assert measured.precision in ("float32", "bf16")


def test_a_network_taken_up_again_keeps_the_precision_that_was_chosen_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    images, config = labelled_images(8), Config(threads=1, precision="auto", epochs=2)
    for chosen, other in (("bf16", "float32"), ("float32", "bf16")):
        monkeypatch.setattr(Training, "_is_faster_in_bf16", lambda self, chosen=chosen: chosen == "bf16")
        first = Training(Watched(), images.pixels, images.soft_labels, config)
        first.epoch()
        # By now the machine is another one, or has other things to do.
        monkeypatch.setattr(Training, "_is_faster_in_bf16", lambda self, other=other: other == "bf16")
        second = Training(Watched(), images.pixels, images.soft_labels, config)
        second.take_up(copy.deepcopy(first.state()))
        second.epoch()
        assert first.precision == second.precision == chosen
        assert second.state()["precision"] == chosen


def test_the_network_learns_a_few_images_by_heart() -> None:
    images = labelled_images(10)
    torch.manual_seed(0)
    network = SmallConvNet(10)
    config = Config(epochs=60, batch_size=10, augmentation="none", weight_decay=0)
    losses = [epoch.train_loss for epoch in train(network, images.pixels, images.soft_labels, config)]
    in_sample = evaluate(predict(network, images.pixels, "cpu"), images).metrics
    floor = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    assert in_sample["accuracy"] == 1
    assert in_sample["cross_entropy"] == pytest.approx(floor, abs=0.1)
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    images = labelled_images(20)

    def figures(seed: int) -> list[object]:
        torch.manual_seed(int(torch.randint(1000, (1,))))  # what the caller drew before has no say
        found = compare_labels(images, replace(QUICK, seed=seed), ignore)
        return [(e, v.metrics) for run in found.runs.values() for e, v in run.curve]

    assert figures(4) == figures(4)
    assert figures(4) != figures(5)


def test_torch_is_left_as_it_was_found() -> None:
    before = torch.random.get_rng_state()
    compare_labels(labelled_images(4), replace(QUICK, threads=2, epochs=1), ignore)
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_where_people_are_certain_of_the_archives_class_the_runs_are_one_and_the_same() -> None:
    images = labelled_images(20)
    agreed = replace(images, soft_labels=np.eye(10)[images.hard_labels])
    runs = compare_labels(agreed, QUICK, ignore).runs
    assert [v.metrics for _, v in runs["soft"].curve] == [v.metrics for _, v in runs["hard"].curve]
    assert [v.metrics for _, v in runs["soft"].curve] == [v.metrics for _, v in runs["top"].curve]


def test_no_held_out_image_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[NDArray[np.uint8]] = []

    def watched(
        model: nn.Module, pixels: NDArray[np.uint8], targets: NDArray[np.float64], config: Config
    ) -> Iterator[Epoch]:
        trained.append(pixels)
        return train(model, pixels, targets, config)

    monkeypatch.setattr(module, "train", watched)
    images = labelled_images(20)
    found = compare_labels(images, QUICK, ignore)
    held_out = {picture.tobytes() for picture in found.held_out.pixels}
    assert len(trained) == 3
    assert all(len(pixels) == 14 for pixels in trained)
    assert not held_out & {picture.tobytes() for pixels in trained for picture in pixels}
    assert len(held_out) == 6


def test_the_last_epoch_is_reported_and_not_the_best() -> None:
    run = compare_labels(labelled_images(20), QUICK, ignore).runs["soft"]
    assert [epoch.number for epoch, _ in run.curve] == [1, 2]
    assert run.final is run.curve[-1][1]


def test_there_is_a_line_of_progress_per_epoch() -> None:
    lines: list[str] = []
    compare_labels(labelled_images(4), QUICK, lines.append)
    expected = [f"{run} epoch {number}/2" for run in ("soft", "hard", "top") for number in (1, 2)]
    assert [" ".join(line.split()[:3]) for line in lines] == expected


def test_the_baselines_know_the_training_images_alone() -> None:
    def shifted(images: LabelledImages, rows: NDArray[np.int64]) -> LabelledImages:
        soft = images.soft_labels.copy()
        soft[rows] = np.eye(10)[3]
        return replace(images, soft_labels=soft)

    images = labelled_images(20)
    held_out = compare_labels(images, replace(QUICK, epochs=1), ignore).held_out.indices
    found = compare_labels(shifted(images, held_out), replace(QUICK, epochs=1), ignore)
    mean = 0.99 * found.train.soft_labels.mean(axis=0) + 0.001
    expected = -np.log(mean[3])
    assert found.baselines["mean_label"].metrics["cross_entropy"] == pytest.approx(expected)
    assert found.baselines["uniform"].metrics["cross_entropy"] == pytest.approx(np.log(10))


def test_a_learning_rate_that_blows_up_is_refused_in_words() -> None:
    with pytest.raises(Refusal, match="lower --lr") as caught:
        compare_labels(labelled_images(20), Config(epochs=30, lr=1e30, threads=1), ignore)
    assert caught.value.code == "training_diverged"


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(Refusal, match=device) as caught:
        compare_labels(labelled_images(4), replace(QUICK, device=device), ignore)
    assert caught.value.code == "device_missing"

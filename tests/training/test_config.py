from __future__ import annotations

import math

import pytest

from elicit.labels import Refusal
from training.config import PRESETS, Config


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"weight_decay": math.inf},
        {"augmentation": "cutout"},
        {"padding": "wrap"},
        {"holdout": 0.0},
        {"holdout": 1.0},
        {"seed": -1},
        {"split": "validation"},
        {"threads": 0},
        {"network": "alexnet"},
        {"schedule": "linear"},
        {"clip": -1.0},
        {"patience": 0},
        {"stop_on": "test"},
        {"precision": "float16"},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(Refusal) as caught:
        Config(**setting)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.code == "setting_invalid"
    assert list(caught.value.fields) == list(setting)


def test_the_published_protocol_is_a_preset() -> None:
    protocol = Config(**PRESETS["protocol"])
    assert (protocol.network, protocol.epochs, protocol.batch_size, protocol.schedule) == ("vgg11", 65, 32, "steps")
    assert (protocol.lr, protocol.momentum, protocol.weight_decay, protocol.clip) == (0.1, 0.9, 1e-4, 1.0)
    assert protocol.padding == "zeros"
    assert Config(**PRESETS["laptop"]) == Config()


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Refusal, match=r"epochs must .*; holdout must"):
        Config(epochs=0, holdout=2)

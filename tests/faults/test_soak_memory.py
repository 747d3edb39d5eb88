"""What the soak makes of the memory that it saw: processes die and begin anew, and grow once by what they load."""

from __future__ import annotations

import pytest

from benchmarks.soak import MOST_GROWTH_MB_A_MINUTE, SAMPLE_EVERY, Sample, Scale

LIFE = 120.0


def grown(mb_a_minute: float, *, step: float = 0.0) -> tuple[float, float, float | None]:
    """Of half an hour of processes that live two minutes each, and load something at another age each time."""
    scale = Scale({})
    for number in range(int(30 * 60 / SAMPLE_EVERY)):
        at = number * SAMPLE_EVERY
        life, age = divmod(at, LIFE)
        loaded = age >= (37 * life) % LIFE
        scale.samples.append(Sample("worker", int(life), at, age, 120 + step * loaded + mb_a_minute * age / 60))
    return scale.growth("worker")


@pytest.mark.parametrize("step", [0.0, 85.0])
@pytest.mark.parametrize("leak", [0.0, 0.5, 1.5])
def test_memory_that_is_lost_by_the_minute_is_told_and_what_is_loaded_once_is_not(leak: float, step: float) -> None:
    _, most, growth = grown(leak, step=step)
    assert growth is not None
    assert growth == pytest.approx(leak, abs=0.05)
    assert (growth > MOST_GROWTH_MB_A_MINUTE) == (leak > MOST_GROWTH_MB_A_MINUTE)
    assert most == pytest.approx(120 + step + leak * (LIFE - SAMPLE_EVERY) / 60)


def test_no_growth_is_told_of_processes_that_never_lived_long() -> None:
    scale = Scale({})
    scale.samples = [Sample("web", number, 10.0 * number, 0.0, 100.0 + number) for number in range(60)]
    assert scale.growth("web") == (129.5, 159.0, None)

"""Points on the probability simplex: checks, entropy, distances.

Shapes: a *distribution* is the last axis, (..., K) with K >= 2; a function of one argument returns (...).
Distances take two arrays of one shape, or one of them (K,). Logarithms are natural (nats).
Wrong shapes and values that are no distribution raise ValueError.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TOLERANCE = 1e-9
"""How far a sum may lie from 1, and an entry below 0."""

KL_FLOOR = 0.01
"""The share of the uniform distribution mixed into q before KL: 0.99 q + 0.001 at K = 10."""


def _as_rows(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] < 2:
        raise ValueError(f"{name} must have shape (..., K) with K >= 2, got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds nan or infinity.")
    return array


def check_simplex(values: ArrayLike, *, tolerance: float = TOLERANCE, name: str = "the label") -> Floats:
    """(..., K) as float64, unchanged, if every row is non-negative and sums to 1 within ``tolerance``."""
    array = _as_rows(values, name)
    if (array < -tolerance).any():
        raise ValueError(f"{name} has a negative entry: {array.min():g}.")
    off = np.abs(array.sum(axis=-1) - 1.0)
    if (off > tolerance).any():
        raise ValueError(f"{name} does not sum to 1: off by {off.max():g}.")
    return array


def normalise(values: ArrayLike) -> Floats:
    """(..., K) non-negative weights divided by their sums."""
    array = _as_rows(values, "the weights")
    if (array < 0).any():
        raise ValueError(f"the weights have a negative entry: {array.min():g}.")
    with np.errstate(over="ignore"):
        sums = array.sum(axis=-1, keepdims=True)
    if not ((sums > 0) & np.isfinite(sums)).all():
        raise ValueError("the weights of a row must have a positive, finite sum.")
    return np.asarray(array / sums)


def _pair(p: ArrayLike, q: ArrayLike) -> tuple[Floats, Floats]:
    first, second = check_simplex(p, name="p"), check_simplex(q, name="q")
    if first.shape != second.shape and (first.shape[-1] != second.shape[-1] or min(first.ndim, second.ndim) > 1):
        raise ValueError(f"p {first.shape} and q {second.shape} must have one shape, or one of them must be (K,).")
    return np.maximum(first, 0.0), np.maximum(second, 0.0)


def _times_log(p: Floats, ratio_of: Floats) -> Floats:
    """p log(ratio), 0 where p is 0."""
    return np.asarray(p * np.log(np.where(p > 0, ratio_of, 1.0)))


def entropy(p: ArrayLike) -> Floats:
    """-sum p log p, in nats: 0 for one certain class, log K for the uniform distribution."""
    array = np.maximum(check_simplex(p, name="p"), 0.0)
    # The maximum turns -0.0, the entropy of a certain class, into 0.0.
    return np.asarray(np.maximum(-_times_log(array, array).sum(axis=-1), 0.0))


def total_variation(p: ArrayLike, q: ArrayLike) -> Floats:
    """Half the sum of |p - q|: 0 for equal, 1 for disjoint distributions."""
    first, second = _pair(p, q)
    return np.asarray(0.5 * np.abs(first - second).sum(axis=-1))


def kl(p: ArrayLike, q: ArrayLike, *, floor: float = KL_FLOOR) -> Floats:
    """KL(p || (1 - floor) q + floor / K), in nats.

    The floor keeps it finite where q says 0 and p does not: people's zeros are not zeros.
    ``floor=0`` gives the bare divergence, infinite there.
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor must lie in 0..1, got {floor}.")
    first, second = _pair(p, q)
    floored = (1.0 - floor) * second + floor / second.shape[-1]
    # A q so small that the ratio overflows is as good as 0.
    with np.errstate(divide="ignore", over="ignore"):
        ratio = np.divide(
            first,
            floored,
            out=np.full(np.broadcast_shapes(first.shape, floored.shape), np.inf),
            where=floored > 0,
        )
        return np.asarray(_times_log(first, ratio).sum(axis=-1))


def js(p: ArrayLike, q: ArrayLike) -> Floats:
    """Jensen-Shannon divergence in nats: 0 for equal, log 2 for disjoint distributions."""
    first, second = _pair(p, q)
    middle = 0.5 * (first + second)
    safe = np.where(middle > 0, middle, 1.0)
    halves = _times_log(first, first / safe) + _times_log(second, second / safe)
    return np.asarray(np.maximum(0.5 * halves.sum(axis=-1), 0.0))


def hellinger(p: ArrayLike, q: ArrayLike) -> Floats:
    """sqrt(half the sum of (sqrt p - sqrt q)^2): 0 for equal, 1 for disjoint distributions."""
    first, second = _pair(p, q)
    return np.asarray(np.sqrt(0.5 * np.square(np.sqrt(first) - np.sqrt(second)).sum(axis=-1)))

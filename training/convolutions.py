"""Convolutions 3x3 that compute as matrix products where their maps are small.

A convolution of few places and many channels is mostly weights, and there the CPU's convolution kernels take many times
as long as the products that they amount to, for the gradient by the weights above all. A matrix product over windows
needs the weights as a matrix: where channels are last, they are one already.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_PLACES = 16
"""Height times width of maps up to which the product is the faster one; at 8 x 8 it is not."""


class Convolution(nn.Conv2d):
    """A convolution 3x3 with padding 1, like any other: the same weights, names and first values.

    With ``as_products``, in training mode and without stride, maps of up to MOST_PLACES go through matrix
    products: the same sums in another order.
    """

    def __init__(self, come: int, go: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(come, go, kernel_size=3, stride=stride, padding=1, bias=bias)
        self.as_products = False

    def forward(self, input: Tensor) -> Tensor:
        places = input.shape[2] * input.shape[3]
        if not (self.as_products and self.training and self.stride == (1, 1) and places <= MOST_PLACES):
            return super().forward(input)
        # Autocast knows torch's own functions alone.
        kind, weight, bias = input.device.type, self.weight, self.bias
        if torch.is_autocast_enabled(kind):
            lower = torch.get_autocast_dtype(kind)
            input, weight, bias = input.to(lower), weight.to(lower), None if bias is None else bias.to(lower)
        maps: Tensor = _AsProducts.apply(input, weight, bias)  # type: ignore[no-untyped-call]
        return maps


class _AsProducts(torch.autograd.Function):
    """maps (B, C, H, W), weight (D, C, 3, 3), bias (D,) or None, all of one type -> (B, D, H, W), channels last."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch, come, height, width = ctx.shape = maps.shape
        padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        image, row, place, channel = padded.stride()
        # Every window as a view, then side by side: (B H W, 9 C).
        windows = padded.as_strided((batch, height, width, 3, 3, come), (image, row, place, row, place, channel))
        windows = windows.reshape(batch * height * width, 9 * come)
        matrix = weight.permute(0, 2, 3, 1).flatten(1)  # (D, 9 C): copied only where channels are not last
        ctx.save_for_backward(windows, matrix)
        ctx.has_bias = bias is not None
        found = windows @ matrix.t() if bias is None else torch.addmm(bias, windows, matrix.t())
        return found.view(batch, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        windows, matrix = ctx.saved_tensors
        batch, come, height, width = ctx.shape
        rows = gradient.permute(0, 2, 3, 1).reshape(len(windows), len(matrix))  # (B H W, D)
        of_windows = (rows @ matrix).view(batch, height, width, 3, 3, come)
        # A place lies in nine windows. Their shares are added in float32 at least, as a convolution adds them.
        fine = torch.promote_types(gradient.dtype, torch.float32)
        padded = torch.zeros(batch, height + 2, width + 2, come, dtype=fine, device=gradient.device)
        for i in range(3):
            for j in range(3):
                padded[:, i : i + height, j : j + width] += of_windows[:, :, :, i, j]
        of_maps = padded[:, 1:-1, 1:-1].to(gradient.dtype).permute(0, 3, 1, 2)
        of_weight = (rows.t() @ windows).view(len(matrix), 3, 3, come).permute(0, 3, 1, 2)
        return of_maps, of_weight, rows.sum(0) if ctx.has_bias else None

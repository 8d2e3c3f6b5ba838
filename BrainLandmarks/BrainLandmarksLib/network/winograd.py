"""3x3x3 convolutions with fewer multiplications, on a CPU.

Winograd's minimal filtering F(4, 3) (A. Lavin, S. Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016, arXiv:1509.09308) gives 4 neighbouring outputs along an axis from 6 inputs
with 6 instead of 12 multiplications; along three axes a voxel takes 3.4 instead of 27 for each pair
of features. What comes before and after are sums, and cost little where there are many features.
PyTorch's own library for CPUs, oneDNN, does this in no more than two dimensions. float32 keeps 4 to
5 digits of its 7, which neither a gradient nor a landmark notices.

A volume is ``(B, D, H, W, C)`` here, features innermost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

OUT, IN = 4, 6
"""Outputs of a tile along an axis, and the inputs that they depend on."""

LEAST_PAIRS = 2048
"""Pairs of features. With fewer, the sums take as long as the multiplications that they save."""

_CHUNK_VOXELS = 2**12
"""About so many voxels are worked on at once, which the processor's cache holds."""

_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""G of the paper's equation 9: from the 3 weights along an axis to the 6 factors of a tile."""


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`convolved` can take a convolution, and is worth it.

    Args:
        x: ``(B, C, D, H, W)``.
        weight: ``(O, C, 3, 3, 3)``.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and weight.shape[0] * weight.shape[1] >= LEAST_PAIRS
        and (not torch.is_grad_enabled() or all(n % OUT == 0 for n in x.shape[2:]))
    )


def convolved(x: Tensor, weight: Tensor, overwrite: bool = False) -> Tensor:
    """A convolution without dilation, padded by one zero on every side, and its gradients.

    Args:
        x: ``(B, C, D, H, W)``, channels last; D, H and W multiples of 4 where gradients are wanted.
        weight: ``(O, C, 3, 3, 3)``.
        overwrite: ``x`` is needed no more, and the result may take its place in memory; without
            gradients, and where there are as many features as before.

    Returns:
        ``(B, O, D, H, W)``, channels last.
    """
    if torch.is_grad_enabled():
        result: Tensor = _Convolution.apply(x, weight)
        return result
    return _forward(x, weight, overwrite and weight.shape[0] == weight.shape[1])


def _forward(x: Tensor, weight: Tensor, overwrite: bool = False) -> Tensor:
    kernel = _kernel_factors(weight)
    rows = x.permute(0, 2, 3, 4, 1)
    result = rows if overwrite else x.new_empty(*rows.shape[:4], weight.shape[0])
    d, h, w = rows.shape[1:4]
    # Beyond the last voxels there is nothing, as in the padding.
    missing = [side for n in (w, h, d) for side in (0, -n % OUT)]
    for part, into in zip(_chunks(rows), _chunks(result), strict=True):
        if any(missing):
            whole = F.pad(part, (0, 0, *missing))
            outputs = whole.new_empty(*whole.shape[:4], weight.shape[0])
            _outputs(torch.bmm(_inputs(whole), kernel), outputs)
            into.copy_(outputs[:, :d, :h, :w])
        else:
            _outputs(torch.bmm(_inputs(part), kernel), into)
    return result.permute(0, 4, 1, 2, 3)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _forward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        kernel = _kernel_factors(weight)
        of_kernel = torch.zeros_like(kernel)
        rows = x.permute(0, 2, 3, 4, 1)
        of_x = torch.empty_like(rows, memory_format=torch.contiguous_format)
        above = gradient.permute(0, 2, 3, 4, 1)
        for part, come, into in zip(_chunks(rows), _chunks(above), _chunks(of_x), strict=True):
            products = _outputs_transposed(come)
            of_kernel.baddbmm_(_inputs(part).transpose(1, 2), products)
            _inputs_transposed(torch.bmm(products, kernel.transpose(1, 2)), into)
        return of_x.permute(0, 4, 1, 2, 3), _kernel_factors_transposed(of_kernel, weight)


def _chunks(rows: Tensor) -> tuple[Tensor, ...]:
    voxels = rows[0, ..., 0].numel()
    return rows.split(max(1, _CHUNK_VOXELS // voxels))


# Kernels: (6^3, C, O) factors of (O, C, 3, 3, 3) weights ------------------------------------------


def _kernel_factors(weight: Tensor) -> Tensor:
    g = weight.new_tensor(_KERNEL)
    factors = torch.einsum("xa,yb,zc,oiabc->xyzio", g, g, g, weight)
    return factors.reshape(IN**3, weight.shape[1], weight.shape[0])


def _kernel_factors_transposed(factors: Tensor, weight: Tensor) -> Tensor:
    g = factors.new_tensor(_KERNEL)
    cube = factors.view(IN, IN, IN, *factors.shape[1:])
    gradient = torch.einsum("xa,yb,zc,xyzio->oiabc", g, g, g, cube)
    return gradient.contiguous(memory_format=_layout(weight))


def _layout(weight: Tensor) -> torch.memory_format:
    last = torch.channels_last_3d
    return last if weight.is_contiguous(memory_format=last) else torch.contiguous_format


# Tiles: from (B, D, H, W, C) to (6^3, tiles, C) and back, an axis after the other -----------------


def _inputs(x: Tensor) -> Tensor:
    """The 6^3 factors of the inputs of every tile."""
    b, d, h, w, c = x.shape
    i, j, k = d // OUT, h // OUT, w // OUT
    padded = x.new_zeros(b, d + 2, h + 2, w + 2, c)
    padded[:, 1:-1, 1:-1, 1:-1] = x
    third = x.new_empty(IN, IN, IN, b, i, j, k, c)
    # What lies between is no larger than the cache if only one layer of tiles is made at once.
    for n in range(i):
        first = x.new_empty(IN, b, 1, h + 2, w + 2, c)
        _input_factors(_steps(padded[:, OUT * n :], 1, IN, 1), first.unbind(0))
        second = x.new_empty(IN, IN, b, 1, j, w + 2, c)
        _input_factors(_steps(first, 3, IN, j), second.unbind(1))
        _input_factors(_steps(second, 5, IN, k), third[:, :, :, :, n : n + 1].unbind(2))
    return third.view(IN**3, -1, c)


def _inputs_transposed(factors: Tensor, into: Tensor) -> None:
    """The gradient of the inputs, given that of their factors."""
    b, d, h, w, c = into.shape
    i, j, k = d // OUT, h // OUT, w // OUT
    third = factors.view(IN, IN, IN, b, i, j, k, c)
    second = into.new_zeros(IN, IN, b, i, j, w + 2, c)
    _input_factors_transposed(third.unbind(2), _steps(second, 5, IN, k))
    first = into.new_zeros(IN, b, i, h + 2, w + 2, c)
    _input_factors_transposed(second.unbind(1), _steps(first, 3, IN, j))
    padded = into.new_zeros(b, d + 2, h + 2, w + 2, c)
    _input_factors_transposed(first.unbind(0), _steps(padded, 1, IN, i))
    into.copy_(padded[:, 1:-1, 1:-1, 1:-1])


def _outputs(products: Tensor, into: Tensor) -> None:
    """The outputs of every tile, given the 6^3 products of factors."""
    b, d, h, w, c = into.shape
    i, j, k = d // OUT, h // OUT, w // OUT
    third = products.view(IN, IN, IN, b, i, j, k, c)
    second = into.new_empty(IN, IN, b, i, j, w, c)
    _output_sums(third.unbind(2), _steps(second, 5, OUT, k))
    first = into.new_empty(IN, b, i, h, w, c)
    _output_sums(second.unbind(1), _steps(first, 3, OUT, j))
    _output_sums(first.unbind(0), _steps(into, 1, OUT, i))


def _outputs_transposed(gradient: Tensor) -> Tensor:
    """The gradient of the products, given that of the outputs."""
    b, d, h, w, c = gradient.shape
    i, j, k = d // OUT, h // OUT, w // OUT
    first = gradient.new_empty(IN, b, i, h, w, c)
    _output_sums_transposed(_steps(gradient, 1, OUT, i), first.unbind(0))
    second = gradient.new_empty(IN, IN, b, i, j, w, c)
    _output_sums_transposed(_steps(first, 3, OUT, j), second.unbind(1))
    third = gradient.new_empty(IN, IN, IN, b, i, j, k, c)
    _output_sums_transposed(_steps(second, 5, OUT, k), third.unbind(2))
    return third.view(IN**3, -1, c)


def _steps(x: Tensor, axis: int, count: int, tiles: int) -> list[Tensor]:
    """The first, second, ... element of every tile along an axis; tiles are 4 elements apart."""
    before = (slice(None),) * axis
    end = OUT * (tiles - 1) + 1
    return [x[(*before, slice(n, n + end, OUT))] for n in range(count)]


# One axis of one tile: B^T and A^T of the paper, and their transposes, as sums --------------------


def _input_factors(x: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    even, odd = torch.sub(x[4], x[2], alpha=4), torch.sub(x[3], x[1], alpha=4)
    torch.add(even, odd, out=into[1])
    torch.sub(even, odd, out=into[2])
    torch.add(even, x[0], alpha=4, out=into[0]).sub_(x[2])
    torch.sub(x[4], x[2], out=even)
    torch.sub(x[3], x[1], out=odd)
    torch.add(even, odd, alpha=2, out=into[3])
    torch.sub(even, odd, alpha=2, out=into[4])
    torch.sub(x[5], x[3], out=into[5]).sub_(odd, alpha=4)


def _input_factors_transposed(v: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    sum12, diff12, sum34, diff34 = v[1] + v[2], v[1] - v[2], v[3] + v[4], v[3] - v[4]
    into[0].add_(v[0], alpha=4)
    into[1].sub_(diff12, alpha=4).sub_(diff34, alpha=2).add_(v[5], alpha=4)
    into[2].sub_(v[0], alpha=5).sub_(sum12, alpha=4).sub_(sum34)
    into[3].add_(diff12).add_(diff34, alpha=2).sub_(v[5], alpha=5)
    into[4].add_(sum12.add_(sum34).add_(v[0]))
    into[5].add_(v[5])


def _output_sums(m: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    near, far = m[1] + m[2], m[3] + m[4]
    torch.add(m[0], near, out=into[0]).add_(far)
    torch.add(near, far, alpha=4, out=into[2])
    torch.sub(m[1], m[2], out=near)
    torch.sub(m[3], m[4], out=far)
    torch.add(near, far, alpha=2, out=into[1])
    torch.add(near, far, alpha=8, out=into[3]).add_(m[5])


def _output_sums_transposed(y: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    even, odd = y[0] + y[2], y[1] + y[3]
    torch.add(even, odd, out=into[1])
    torch.sub(even, odd, out=into[2])
    torch.add(y[0], y[2], alpha=4, out=even)
    torch.add(y[1], y[3], alpha=4, out=odd)
    torch.add(even, odd, alpha=2, out=into[3])
    torch.sub(even, odd, alpha=2, out=into[4])
    into[0].copy_(y[0])
    into[5].copy_(y[3])

"""HighRes3DNet for inference: folded batch norms, reduced precision, memory."""

from __future__ import annotations

import copy
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from BrainLandmarksLib.network import winograd
from BrainLandmarksLib.network.highres3dnet import (
    CHANNELS_LAST,
    HighRes3DNet,
    ResidualBlock,
    channels_last,
    merge_lattice,
    pad_channels,
    split_lattice,
)


class ScaleShiftReLU(nn.Module):
    """``relu(x * scale + shift)`` per feature: a batch norm with fixed statistics, then ReLU."""

    scale: Tensor
    shift: Tensor
    zero: Tensor
    one: Tensor

    def __init__(self, norm: nn.BatchNorm3d) -> None:
        super().__init__()
        scale, shift = _scale_and_shift(norm)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("zero", torch.zeros_like(scale))
        self.register_buffer("one", torch.ones_like(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(B, C, D, H, W)``."""
        # With zero mean and unit variance PyTorch's batch norm is one fused pass that keeps
        # float32 parameters for bfloat16 features.
        x = F.batch_norm(x, self.zero, self.one, self.scale, self.shift, eps=0.0)
        return F.relu(x, inplace=True)


class FoldedBlock(nn.Module):
    """A residual block for inference: its second batch norm lives in its first convolution."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.activate = ScaleShiftReLU(block.norm1)
        self.conv1 = _folded(block.conv1, block.norm2)
        self.conv2 = _copied(block.conv2)
        self.dilation = block.dilation
        self.attention = copy.deepcopy(block.attention)

    def forward(self, x: Tensor, lattice: int = 1, reduced: torch.dtype | None = None) -> Tensor:
        """Run the block on ``(B, C, D, H, W)``, which is overwritten where it can be.

        Args:
            lattice: Every so many voxels of the cube are a volume of their own in ``x``.
            reduced: Dtype of the convolutions' operands; the sum keeps the dtype of ``x``.
        """
        dilation = self.dilation // lattice
        out = F.relu(_convolved(self.conv1, self.activate(x), dilation, reduced), inplace=True)
        out = _convolved(self.conv2, out, dilation, reduced)
        if self.attention is not None:
            out = out * self.attention(out)
        return pad_channels(x, out.shape[1]).add_(out)


class FoldedHighRes3DNet(nn.Module):
    """:class:`HighRes3DNet` for inference, made by :func:`fold_batch_norm`.

    Args:
        network: the network to copy, in whatever mode; its running statistics are used.
    """

    def __init__(self, network: HighRes3DNet) -> None:
        super().__init__()
        self.out_channels = network.out_channels
        self.exact_blocks = network.residual_blocks
        self.stage_blocks = network.residual_blocks if network.long_skips else 0
        self.first = _folded(network.first[0], network.first[1], padding=1)
        self.blocks = nn.ModuleList(
            FoldedBlock(block) for _, blocks in network.residual_stages() for block in blocks
        )
        self.penultimate = _folded(network.penultimate[0], network.penultimate[1])
        if network.classifier_norm:
            self.classifier = _folded(network.classifier, network.norm)
        else:
            self.classifier = _copied(network.classifier)
        channels_last(self)
        self.requires_grad_(False)
        self.eval()

    def forward(self, cube: Tensor, reduced: torch.dtype | None = None) -> Tensor:
        """Heatmaps (logits), ``(B, K, D, H, W)``, of cubes ``(B, C, D, H, W)``.

        ``reduced`` is the dtype of the operands of the wide convolutions (all but the first stage),
        which take most of the time.
        """
        x = F.relu(self.first(cube.contiguous(memory_format=CHANNELS_LAST)), inplace=True)
        lattice, splits = 1, []
        ends: list[Tensor] = []
        for index, block in enumerate(cast("Sequence[FoldedBlock]", self.blocks)):
            step = block.dilation // lattice
            if step > 1 and self._split_pays(x, lattice, reduced):
                x = split_lattice(x, step)
                splits.append(step)
                lattice = block.dilation
            # The thin layers at both ends and the residual sums cost little in float32; in bfloat16
            # they alone would move landmarks by 0.1 mm.
            x = block(x, lattice, None if index < self.exact_blocks else reduced)
            # The next stage is wider: its first block does not overwrite what is kept here.
            if self.stage_blocks and (index + 1) % self.stage_blocks == 0:
                ends.append(x)
        for step in reversed(splits):
            x = merge_lattice(x, step)
        if ends:
            x = torch.cat(ends, 1)
        return self.classifier(F.relu(self.penultimate(x), inplace=True))

    def _split_pays(self, x: Tensor, lattice: int, reduced: torch.dtype | None) -> bool:
        """Whether dilated stages run faster on sub-lattices, with the same result."""
        last = cast("FoldedBlock", self.blocks[-1])
        even = all(n % (last.dilation // lattice) == 0 for n in x.shape[2:])
        # Attention is to the whole cube, and long skips join stages of all dilations.
        plain = last.attention is None and not self.stage_blocks
        return plain and reduced is None and even and winograd.pays(x, last.conv2.weight)


def fold_batch_norm(network: HighRes3DNet) -> FoldedHighRes3DNet:
    """A copy for inference with the batch norms folded into the weights.

    A batch norm that directly follows a convolution becomes part of that convolution; one that
    follows an addition becomes a scale, shift and ReLU in one pass. Dropout disappears.

    >>> fast = fold_batch_norm(network)
    >>> heatmaps = inference_heatmaps(fast, cube)
    """
    return FoldedHighRes3DNet(network)


def _convolved(conv: nn.Conv3d, x: Tensor, dilation: int, reduced: torch.dtype | None) -> Tensor:
    """A convolution that keeps the size, with operands and result in ``reduced`` precision if any.

    Args:
        conv: Its weights.
        x: Is overwritten where it can be.
    """
    weight, bias = conv.weight, conv.bias
    if reduced is not None:
        x, weight = x.to(reduced), weight.to(reduced)
        bias = None if bias is None else bias.to(reduced)
    elif dilation == 1 and winograd.pays(x, weight):
        out = winograd.convolved(x, weight, overwrite=True)
        return out if bias is None else out.add_(bias[:, None, None, None])
    return F.conv3d(x, weight, bias, padding=dilation, dilation=dilation)


def _scale_and_shift(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("only a batch norm that tracks its statistics can be folded")
    # In float64, so that folding adds no rounding of its own.
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return scale.to(norm.weight.dtype).detach(), shift.to(norm.weight.dtype).detach()


def _folded(conv: nn.Module, norm: nn.Module, padding: int = 0) -> nn.Conv3d:
    """``norm(conv(x))`` as one convolution with a bias."""
    assert isinstance(conv, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    scale, shift = _scale_and_shift(norm)
    kernel = conv.weight.detach() * scale[:, None, None, None, None]
    return _convolution(kernel, shift if conv.bias is None else shift + conv.bias * scale, padding)


def _copied(conv: nn.Conv3d, padding: int = 0) -> nn.Conv3d:
    return _convolution(conv.weight, conv.bias, padding)


def _convolution(weight: Tensor, bias: Tensor | None, padding: int) -> nn.Conv3d:
    features, channels, size = weight.shape[:3]
    conv = nn.Conv3d(channels, features, size, padding=padding, bias=bias is not None)
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv


@torch.inference_mode()
def inference_heatmaps(
    network: HighRes3DNet | FoldedHighRes3DNet, cube: Tensor, precision: str = "auto"
) -> Tensor:
    """Heatmaps of cubes, as fast as the device allows.

    Args:
        network: folded once by the caller, or folded here (a copy of the weights a call).
        cube: ``(B, C, D, H, W)`` float32 on any device; the heatmaps come back on the network's.
        precision: ``"float32"``; ``"bfloat16"``: the convolutions of the second and third stage
            with bfloat16 operands, everything else (first stage, residual sums, last layers) in
            float32; ``"auto"``: bfloat16 where the device has fast instructions for it (see
            :func:`bfloat16_is_fast`), else float32.

    Returns:
        ``(B, K, D, H, W)`` float32 logits.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is auto, float32 or bfloat16, got {precision!r}")
    folded = network if isinstance(network, FoldedHighRes3DNet) else fold_batch_norm(network)
    device = folded.classifier.weight.device
    reduced = precision == "bfloat16" or (precision == "auto" and bfloat16_is_fast(device))
    heatmaps: Tensor = folded(cube.to(device), torch.bfloat16 if reduced else None)
    return heatmaps


def bfloat16_is_fast(device: torch.device | str = "cpu") -> bool:
    """Whether convolutions in bfloat16 are faster than in float32 on a device.

    On a CPU that needs AVX512-BF16 or AMX (x86) or BF16 (Arm) instructions; without them oneDNN
    emulates bfloat16 and loses time.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return _cpu_has_bfloat16()


@lru_cache(maxsize=1)
def _cpu_has_bfloat16() -> bool:
    try:
        capabilities = torch.cpu.get_capabilities()
    except AttributeError:  # PyTorch before 2.12 has no public query
        flags = _linux_cpu_flags()
        return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _linux_cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [ln for ln in file if ln.lower().startswith(("flags", "features"))]
    except OSError:
        return set()
    return set(lines[0].split(":", 1)[1].split()) if lines else set()


def keep_freed_memory() -> None:
    """Let the process keep freed memory for reuse instead of returning it to Linux.

    glibc gives every array above 32 MB back to the kernel when it is freed, and the kernel zeroes
    new pages at the next one: at N = 64 that takes longer than the arithmetic of most layers
    (measured: an addition of two 33 MB feature maps 9.8 ms against 1.8 ms). Other systems are left
    alone. The peak of memory does not change, only its return.
    """
    if _kept_bytes(1 << 30):
        _glibc_function("mallopt")(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Return freed memory to Linux here, also what :func:`keep_freed_memory` has kept so far.

    Large feature maps of ever other sizes do not fit into the gaps that others have left: kept,
    those of a parcellation would take three times the memory.
    """
    if not _kept_bytes(_LARGE_BYTES):
        yield
        return
    trim = _glibc_function("malloc_trim")
    trim(0)
    try:
        yield
    finally:
        keep_freed_memory()
        trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, see malloc.h."""

_LARGE_BYTES = 1 << 25


def _kept_bytes(size: int) -> bool:
    """Up to this size freed memory is kept; False if that is not ours to say."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = _glibc_function("mallopt")
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    mallopt(_M_MMAP_THRESHOLD, size)
    return True


def _glibc_function(name: str) -> Callable[..., int]:
    """A function of the C library by its name.

    Raises:
        AttributeError: the C library has no such function.
    """
    found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    return found

"""Where the network runs. PyTorch is imported only when a device is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from BrainLandmarksLib.errors import UserError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What a person can choose. The module files of Slicer repeat it: they are read without us."""


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on; a GPU counts only if it runs a kernel now.

    Args:
        name: One of `DEVICES`. auto never takes mps: 3-D convolutions there are
            slower than on the CPU, or missing.

    Raises:
        UserError: a device was named that does not work here.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in DEVICES:
        raise UserError(
            f"there is no device {name!r}; choose {', '.join(DEVICES[:-1])} or {DEVICES[-1]}."
        )
    device = torch.device("mps" if name == "mps" else "cuda")
    try:
        # An installed driver proves little: the newest cards are often too new for the build.
        probe = torch.nn.functional.conv3d(
            torch.ones(1, 1, 4, 4, 4, device=device), torch.ones(1, 1, 3, 3, 3, device=device)
        )
        if probe.sum().item() == 8 * 27:
            return device
        reason = "it computes wrong numbers"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it does not answer"
    if name == "auto":
        return torch.device("cpu")
    raise UserError(f"the device {name} does not work here ({reason}); use --device cpu.")

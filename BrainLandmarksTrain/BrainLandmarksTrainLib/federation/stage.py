"""What site and server have to agree on before anything is trained: landmarks and networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from BrainLandmarksLib.errors import UserError
from BrainLandmarksLib.io.checksum import sha256
from BrainLandmarksLib.network.model_files import Model

_SHOWN = 8
"""Characters of a hash that an error shows."""


class Refused(UserError):
    """A site does not train with this server; the sentence holds hashes and names of settings only.

    It is sent to the server, so nothing of the site may be in it.
    """


@dataclass(frozen=True)
class Stage:
    """Which landmarks are learnt, and where training starts.

    Args:
        protocol: Hash of the landmark protocol.
        model: Hash of the networks' layers, of their cubes and of the mean shape, in whose pose
            they see a head. The weights are not in it: they change with every round.
    """

    protocol: str
    model: str

    @classmethod
    def of(cls, model: Model) -> Stage:
        """That of a model."""
        parts = {
            part: {"layers": network.spec(), "cube": asdict(crop)}
            for part, (network, crop) in model.networks.items()
        }
        shape = np.round(np.asarray(model.spec.mean_shape, float), 3).tolist()
        about = {"networks": parts, "mean_shape": shape, "input": model.spec.normalisation}
        text = json.dumps(about, sort_keys=True, default=str)
        return cls(model.protocol.hash, sha256([text]))

    def to_config(self) -> dict[str, str]:
        """As texts of a message."""
        return {"protocol": self.protocol, "model": self.model}

    def need_same(self, config: Mapping[str, Any]) -> None:
        """Check what a server says of itself.

        Raises:
            Refused: it trains for other landmarks, or from another model.
        """
        theirs = {name: str(config.get(name, "")) for name in ("protocol", "model")}
        if theirs["protocol"] != self.protocol:
            raise Refused(
                f"this site has the landmark protocol {self.protocol[:_SHOWN]} and the server "
                f"{theirs['protocol'][:_SHOWN] or 'none'}; nothing was trained: join the "
                "federation with a dataset of its protocol."
            )
        if theirs["model"] != self.model:
            raise Refused(
                f"this site starts from the model stage {self.model[:_SHOWN]} and the server from "
                f"{theirs['model'][:_SHOWN] or 'none'}; nothing was trained: give --model the "
                "model that the server starts from."
            )

"""The published recipe: 12 MobileNetV2 with five outputs, torch fp32 eager, every slice at 224
in batches of 32, the members' answers averaged. Weights are random: they do not change the time."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from triage.nets.mobilenet_v2 import MobileNetV2

MEMBERS, SIZE, BATCH = 12, 224, 32


class Recipe:
    """The ensemble, loaded and ready."""

    def __init__(self) -> None:
        self.members = [MobileNetV2(num_classes=5).eval() for _ in range(MEMBERS)]

    @torch.inference_mode()
    def __call__(self, hu: NDArray[np.int16]) -> torch.Tensor:
        """HU (X, Y, Z) -> probabilities (Z, 5)."""
        slices = torch.from_numpy(np.ascontiguousarray(hu.T))  # (Z, Y, X)
        answers = []
        for batch in slices.split(BATCH):
            grey = ((batch.float() + 160) / 400).clamp(0, 1)[:, None]  # (B, 1, Y, X)
            x = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            x = x.expand(-1, 3, -1, -1).contiguous()
            answers.append(torch.stack([net(x).sigmoid() for net in self.members]).mean(0))
        return torch.cat(answers)

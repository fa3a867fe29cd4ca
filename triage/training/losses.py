"""Losses that several trainings share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, gamma 2) of every element, for truth in [0, 1]."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (logits.sigmoid() - truth).abs() ** 2 * entropy

"""The sequence head: all slices of a view, in their order, -> one study logit.

A lesion goes through neighbouring slices; noise does not. The head reads what the slice ensemble
said of every slice, beside the slice's trunk features, from the feet upwards: a small bidirectional
GRU (Cho et al., arXiv:1406.1078) with attention pooling (Ilse et al., arXiv:1802.04712). It starts
as the plain pooling of the slice logits and learns what to add to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from triage.types import TARGETS, Target

STEP_MM = 6.0  # slices are brought to this distance, so that any spacing gives the same sequence
PROJECT = 8  # trunk features enter through a narrow door: there are few patients


class SequenceHead(nn.Module):
    """One target: slice features, slice logits and their plain pooling -> study logit.

    `channels`: of the trunk features, averaged over each slice (0: logits alone).
    """

    def __init__(self, channels: int, width: int = 24, dropout: float = 0.2) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.project = nn.Sequential(
            nn.LayerNorm(channels), nn.Dropout(dropout), nn.Linear(channels, PROJECT)
        ) if channels else None  # fmt: skip
        inputs = 2 + (PROJECT if channels else 0)
        self.gru = nn.GRU(inputs, width, batch_first=True, bidirectional=True)
        self.attend = nn.Linear(2 * width, 1)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(4 * width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, features: Tensor, logits: Tensor, z: Tensor, base: Tensor, length: Tensor
    ) -> Tensor:
        """-> study logits (B,).

        features (B, S, C); logits (B, S); z (B, S) in mm, rising in steps of `STEP_MM`; base (B,)
        the plain pooling of the logits; length (B,) integer: slices beyond it are padding.
        """
        inside = torch.arange(logits.shape[1], device=logits.device)[None] < length[:, None]
        middle = (z * inside).sum(1, keepdim=True) / length[:, None]  # (B, 1)
        parts = [logits[..., None] / 2, (z - middle)[..., None] / 100]
        if self.project is not None:
            parts.append(self.project(features))
        x = torch.cat(parts, -1)  # (B, S, 2 + 8)
        packed = pack_padded_sequence(x, length.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=logits.shape[1]
        )  # (B, S, 2 * width)
        score = self.attend(states)[..., 0].masked_fill(~inside, -torch.inf)  # (B, S)
        attended = (score.softmax(1)[..., None] * states).sum(1)  # (B, 2 * width)
        strongest = states.masked_fill(~inside[..., None], -torch.inf).amax(1)  # (B, 2 * width)
        more: Tensor = self.out(self.dropout(torch.cat([attended, strongest], 1)))[:, 0]
        return base + more


class SequenceHeads(nn.Module):
    """A sequence head for each target that has one. `channels`: trunk features by target."""

    def __init__(self, channels: Mapping[str, int], width: int = 24) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "kind": "GRU",
            "width": width,
            "channels": dict(channels),
            "step_mm": STEP_MM,
        }
        known = {t.value: channels[t.value] for t in TARGETS if t.value in channels}
        self.heads = nn.ModuleDict({t: SequenceHead(c, width) for t, c in known.items()})

    def __contains__(self, target: Target) -> bool:
        return target.value in self.heads

    @torch.no_grad()
    def study(
        self, target: Target, features: Tensor, logits: Tensor, z: Tensor, base: float
    ) -> float:
        """Study logit of one view: trunk features (S, C, h, w), logits (members, S), z (S,) mm."""
        x, y, at = at_steps(features.mean((2, 3)), logits.mean(0), z)
        start, length = x.new_tensor([base]), torch.tensor([len(at)])
        answer: Tensor = self.heads[target.value](x[None], y[None], at[None], start, length)
        return float(answer[0])


def at_steps(features: Tensor, logits: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features (S, C), logits (S,) and z (S,), rising, brought to steps of `STEP_MM`, linearly."""
    n = int((float(z[-1] - z[0]) + 1e-3) / STEP_MM) + 1
    at = z[0] + STEP_MM * torch.arange(n, device=z.device, dtype=z.dtype)  # (N,)
    if len(z) == 1:
        return features, logits, z
    upper = torch.searchsorted(z, at - 1e-3).clamp(1, len(z) - 1)
    share = ((at - z[upper - 1]) / (z[upper] - z[upper - 1])).clamp(0, 1).to(features)
    mixed = torch.lerp(features[upper - 1], features[upper], share[:, None])
    return mixed, torch.lerp(logits[upper - 1], logits[upper], share), at

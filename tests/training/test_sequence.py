"""Sequence heads: padding and spacing do not matter, order does, and a planted signal is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from triage.inference.score import pool_slices
from triage.nets.sequence_head import STEP_MM, SequenceHead, SequenceHeads, at_steps
from triage.training.sequence import (
    Compared,
    compare,
    judge,
    load_heads,
    pad,
    plain,
    save_heads,
    study_logits,
    train_head,
    train_heads,
)
from triage.training.studies import Study, View
from triage.types import Target

CHANNELS = 6


def view(logits: Tensor, seed: int = 0, step: float = STEP_MM) -> View:
    n = len(logits)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, CHANNELS, generator=generator)
    return View(features, logits, step * torch.arange(n) - 700.0, pool_slices(logits[None]))


def lively(seed: int = 0) -> SequenceHead:
    """A head with random weights everywhere, in eval mode."""
    torch.manual_seed(seed)
    head = SequenceHead(CHANNELS).eval()
    torch.nn.init.normal_(head.out.weight)
    return head


@torch.no_grad()
def test_padding_and_company_do_not_change_the_answer() -> None:
    head = lively()
    studies = [Study(f"p{i}", 0, (view(torch.randn(n), i),)) for i, n in enumerate((1, 2, 9, 40))]
    together = study_logits(head, pad(studies))
    alone = torch.cat([study_logits(head, pad([s])) for s in studies])
    assert torch.allclose(together, alone, atol=1e-5)
    assert float(alone.std()) > 0.01


@torch.no_grad()
def test_the_strongest_view_counts() -> None:
    head = lively()
    views = [view(torch.randn(12), i) for i in range(2)]
    both = study_logits(head, pad([Study("p", 0, tuple(views))]))
    each = [study_logits(head, pad([Study("p", 0, (v,))])) for v in views]
    assert torch.allclose(both, torch.maximum(*each), atol=1e-5)


@torch.no_grad()
def test_slice_spacing_does_not_matter() -> None:
    """The same patient in slices of 2 mm and of 6 mm; a smooth course, as anatomy is."""
    heads = SequenceHeads({Target.LIVER.value: CHANNELS})
    heads.heads[Target.LIVER.value] = lively()

    def seen(step: float) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.arange(0, 240.1, step)
        features = torch.stack([torch.sin(z / (20 + 9 * c)) for c in range(CHANNELS)], 1)
        return features[..., None, None], torch.sin(z / 25)[None], z - 500

    fine, coarse = (heads.study(Target.LIVER, *seen(step), base=0.3) for step in (2.0, 6.0))
    assert fine == pytest.approx(coarse, abs=1e-3)


def test_steps_are_even_and_inside() -> None:
    z = torch.tensor([0.0, 5.0, 10.0, 16.0])
    x, y, at = at_steps(z[:, None] * 2, z, z)
    assert at.tolist() == [0.0, 6.0, 12.0]
    assert torch.allclose(y, at, atol=1e-4) and torch.allclose(x[:, 0], 2 * at, atol=1e-4)
    one = at_steps(torch.ones(1, 3), torch.ones(1), torch.zeros(1))
    assert [len(v) for v in one] == [1, 1, 1]


@torch.no_grad()
def test_an_untrained_head_is_the_plain_pooling() -> None:
    studies = [Study("p", 0, (view(torch.randn(20), i),)) for i in range(3)]
    assert judge(SequenceHead(CHANNELS), studies) == pytest.approx(plain(studies), abs=1e-6)


def planted(n: int, seed: int) -> list[Study]:
    """Injured: four raised slices side by side; healthy: four raised slices apart."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        logits = rng.normal(0, 0.3, 16)
        start = int(rng.integers(0, 13))
        beside, apart = np.arange(start, start + 4), rng.permutation(8)[:4] * 2
        logits[beside if i % 2 else apart] += 2
        own = torch.from_numpy(logits.astype(np.float32))
        out.append(Study(f"p{seed}-{i}", i % 2, (view(own, seed * 1000 + i)._replace(base=0.0),)))
    return out


def test_it_learns_that_lesions_go_through_neighbours(tmp_path: Path) -> None:
    head = train_head(
        Target.LIVER, planted(60, 1), tmp_path, steps=100, batch=16, log=lambda s: None
    )
    fresh = planted(60, 2)
    scores, labels = judge(head, fresh), np.array([s.label for s in fresh])
    above = scores[labels == 1][:, None] > scores[labels == 0][None]
    assert above.mean() > 0.9


def test_a_head_that_does_not_help_is_not_kept(tmp_path: Path) -> None:
    """Where pooling already separates, a head cannot beat it."""
    studies = [
        Study(f"p{i}", i % 2, (view(torch.full((6,), 3.0 * (i % 2)), i),)) for i in range(12)
    ]
    result = compare(Target.SPLEEN, studies, tmp_path / "a", folds=2, steps=8)
    assert result.plain == 1.0 and not result.better
    own = {Target.SPLEEN: studies}
    heads, compared = train_heads(own, tmp_path / "b", steps=8, fewest=6, log=lambda s: None)
    assert heads is None and compared[Target.SPLEEN].plain == 1.0
    heads, compared = train_heads(own, tmp_path / "c", log=lambda s: None)
    assert heads is None and "too few studies" in compared[Target.SPLEEN].said


def test_heads_are_kept_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "sequence.pt"
    assert load_heads(path) is None
    heads = SequenceHeads({Target.LIVER.value: CHANNELS})
    save_heads(path, heads, {Target.LIVER: Compared(9, 0.8, 0.7)})
    again = load_heads(path)
    assert again is not None and Target.LIVER in again
    for name, value in heads.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    save_heads(path, None, {})
    assert load_heads(path) is None

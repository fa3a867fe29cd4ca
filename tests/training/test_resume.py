"""A training that is killed and goes on ends where an uninterrupted one ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from triage.nets.localiser import CLASSES, Localiser
from triage.training import localiser
from triage.training.cache import Entry, entries, save
from triage.types import ORGAN_LABEL, Organ


class _KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    from triage.simulate.patient import simulate

    folder = tmp_path_factory.mktemp("people")
    for seed in range(2):
        save(simulate(seed, spacing=(6.0, 6.0, 10.0))[0], folder / f"p{seed}", f"p{seed}")
    return entries(folder)


def test_killed_and_resumed_gives_the_same_weights(people: list[Entry], tmp_path: Path) -> None:
    whole = localiser.train(people, tmp_path / "a", steps=6, save_every=2, log=lambda s: None)
    calls = 0

    def killer(text: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # after four steps, before they are saved: two are lost and done again
            raise _KilledError

    with pytest.raises(_KilledError):
        localiser.train(people, tmp_path / "b", steps=6, save_every=2, log=killer)
    assert torch.load(tmp_path / "b" / "localiser.pt", weights_only=True)["step"] == 2
    resumed = localiser.train(people, tmp_path / "b", steps=6, save_every=2, log=lambda s: None)
    for (name, one), two in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name
    fresh = Localiser().state_dict()
    assert any(not torch.equal(fresh[k], v) for k, v in resumed.state_dict().items())


def test_a_later_round_goes_on_from_the_weights_it_is_given(
    people: list[Entry], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    start = {k: v.clone() for k, v in Localiser().state_dict().items()}
    again = localiser.train(
        people, tmp_path, steps=1, start=start, name="again", save_every=1, log=lambda s: None
    )
    assert (tmp_path / "again.pt").exists() and not (tmp_path / "localiser.pt").exists()
    moved = [float((v - start[k]).abs().max()) for k, v in again.named_parameters()]
    assert 0 < max(moved) < 0.02  # one step of the learning rate, not another initialisation


def test_unknown_organs_cost_nothing() -> None:
    """Where a background does not label the bowel, calling bowel bowel is no error."""
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    logits = torch.full((1, CLASSES, 4, 4, 4), -10.0)
    logits[:, ORGAN_LABEL[Organ.BOWEL]] = 10.0
    everything = frozenset(ORGAN_LABEL.values())
    without = everything - {ORGAN_LABEL[Organ.BOWEL]}
    assert float(localiser.loss(logits, labels, [everything])) > 5
    assert float(localiser.loss(logits, labels, [without])) < 0.05


def test_blocks_take_their_most_frequent_label() -> None:
    labels = torch.zeros(6, 6, 4, dtype=torch.uint8)
    labels[:3, :3, :2] = 2
    labels[0, 0, 0] = 1
    labels[3:, 3:, 2:] = 7
    pooled = localiser.pool_labels(labels, (3, 3, 2))
    assert pooled.shape == (2, 2, 2)
    assert int(pooled[0, 0, 0]) == 2
    assert int(pooled[1, 1, 1]) == 7
    assert int(pooled[0, 1, 0]) == 0

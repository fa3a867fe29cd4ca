"""What a bundle says of a real CT, as a row of its model card."""

from __future__ import annotations

from pathlib import Path

from triage.inference.networks import load_networks
from triage.nets.bundle import find_bundle
from triage.settings import Settings
from triage.training.evaluation.real_ct import cells, judge_ct
from triage.types import TARGETS, Organ


def test_a_slab_is_a_row_without_a_verdict(shared: Path) -> None:
    nets = load_networks(find_bundle("reference"), "cpu")
    ct, labels = shared / "ct/portal_slab_dicom", shared / "ct/portal_slab_seg.nii.gz"
    row = judge_ct("portal_slab", nets, ct, labels, Settings())
    assert row["trained_on"] is False and row["status"] == "analysed"
    assert {f["verdict"] for f in row["targets"].values()} == {"not_assessed"}
    assert row["targets"].keys() == {t.value for t in TARGETS}
    assert row["dice"][Organ.AORTA.value] > 0.5  # its columns are the CT's, not mirrored or turned
    assert set(row["dice"]) <= {o.value for o in Organ}
    ((name, trained, *verdicts, dice),) = cells([row])
    assert (name, trained) == ("portal_slab", "no") and "aorta 0." in dice
    assert all(v == "not assessed (INCOMPLETE_COVERAGE)" for v in verdicts)

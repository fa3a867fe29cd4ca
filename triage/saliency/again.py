"""A report explained once more, by another method, from what its folder holds.

The folder has the CT on the working grid as the networks saw it (`scene/`), the organs, and maps
on the voxels of the original CT, which say where those lie. The bundle must be the one that
answered. Written below `<report>/explain/<method>/`: `saliency_<target>.nii.gz` on the original
CT's voxels, overlays of the key slices with their unmarked twins, and contact sheets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from triage.decision.table import CutoffTable
from triage.files import organs_name
from triage.imaging.volume import straightened
from triage.inference.localise import describe
from triage.inference.networks import Networks
from triage.inference.score import Evidence, gather
from triage.saliency.attribution import explain
from triage.saliency.drawing import Frame
from triage.saliency.explain import Drawing, map_planes, speaks_for, write_map, write_sheets
from triage.saliency.methods import Captum
from triage.saliency.names import SCENE, Method
from triage.saliency.overlay import ROOM
from triage.types import (
    Anatomy,
    Cutoff,
    Finding,
    KeySlice,
    Series,
    Target,
    Verdict,
    Volume,
)

Progress = Callable[[str, float], None]


class NotExplained(ValueError):
    """The folder cannot be explained; the text says what was expected and what came."""


@dataclass(frozen=True)
class Kept:
    """What a report folder keeps of one series: CT (1, X, Y, Z) in HU and organs, on one grid."""

    grid: MetaTensor
    anatomy: Anatomy


def explain_report(
    folder: Path,
    nets: Networks,
    method: Method,
    targets: Sequence[Target] = (),
    *,
    original: Callable[[str], Volume] | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Explain assessed targets of a report (all, or some) by `method`.

    `original` gives the volume of a SeriesInstanceUID: overlays are then drawn on the CT itself,
    else on its copy of 1.5 x 1.5 x 3 mm, as the pictures say. Returns the findings with their new
    files. Raises NotExplained.
    """
    tell = progress or (lambda stage, share: None)
    report = read(folder, nets)
    wanted = [
        t
        for t in (targets or tuple(Target))
        if report["targets"][t.value]["verdict"] != Verdict.NOT_ASSESSED.value
    ]
    if not wanted:
        raise NotExplained("Expected a target that was assessed, found none of those asked for")
    out = folder / "explain" / method.value
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    numbers = {s["series_instance_uid"]: i for i, s in enumerate(report["series"], start=1)}
    by_series: dict[str, list[Target]] = {}
    for target in wanted:
        by_series.setdefault(report["targets"][target.value]["series_instance_uid"], []).append(
            target
        )
    done: dict[Target, Finding] = {}
    for uid, own in by_series.items():
        tell("networks", len(done) / len(wanted))
        one = _Series(folder, numbers[uid], nets, method, own, original and original(uid))
        for target in own:
            tell(target.value, len(done) / len(wanted))
            done[target] = one.explain(finding_of(target, report["targets"][target.value]), out)
    write_sheets(done, out)
    return list(done.values())


class _Series:
    """One series of a report, with its networks' evidence."""

    def __init__(
        self,
        folder: Path,
        number: int,
        nets: Networks,
        method: Method,
        targets: Sequence[Target],
        original: Volume | None,
    ) -> None:
        self.folder, self.nets, self.method = folder, nets, method
        self.kept = kept(folder, number)
        self.original = original
        self.table = CutoffTable.from_bundle(nets.folder)
        self.evidence: Evidence = gather(nets, self.kept.grid, self.kept.anatomy, targets)

    def explain(self, finding: Finding, out: Path) -> Finding:
        """Map and overlays of one target below `out`."""
        anatomy = self.kept.anatomy
        branches = None
        if self.method is not Method.MAP:
            branches = Captum(self.nets, self.evidence, self.kept.grid, anatomy, self.method)
        weights = self.table.branch_weights(finding.target)
        field = explain(
            self.nets,
            self.evidence,
            anatomy,
            finding.target,
            weights,
            branches,
            speaks_for=speaks_for(finding, self.table),
        )
        place = _place(self.folder / str(finding.saliency))
        if self.original is not None and self.original.hu.shape != place.hu.shape:
            raise NotExplained(
                f"Expected the series with voxels {tuple(place.hu.shape[1:])}, got "
                f"{tuple(self.original.hu.shape[1:])}"
            )
        write_map(map_planes(field, place, straightened(place)), finding.target, out)
        return self._pictures(finding, field, place, out)

    def _pictures(self, finding: Finding, field: MetaTensor, place: Volume, out: Path) -> Finding:
        note = f"explained by {self.method.value}"
        volume = self.original
        if volume is None:
            volume = Volume(self.kept.grid, (), place.series)
            note += " on the 3 mm copy"
            finding = _on_grid(finding, straightened(place), self.kept.grid)
        frame = Frame.around_body(volume, ROOM)
        straight = straightened(volume)
        drawing = Drawing(self.nets.ref, volume, straight, frame, out, note)
        planes = map_planes(field, volume, straight)
        return drawing.pictures(finding, field, planes, self.kept.anatomy)


def read(folder: Path, nets: Networks) -> dict[str, Any]:
    """report.json of a folder, answered by these networks. Raises NotExplained."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NotExplained(f"Expected a report folder, got {folder}: {error}") from error
    if report.get("status") != "analysed":
        raise NotExplained(f"Expected an analysed study, got {report.get('status')}")
    answered = report["bundle"]
    if answered["sha256"] != nets.ref.sha256:
        raise NotExplained(
            f"Expected the bundle that answered, {answered['name']} {answered['version']}"
            f" ({answered['sha256'][:12]}), got {nets.ref.name} {nets.ref.version}"
            f" ({nets.ref.sha256[:12]})"
        )
    return report


def kept(folder: Path, number: int) -> Kept:
    """CT and organs of series `number`, counted from 1. Raises NotExplained."""
    paths = folder / SCENE / f"{number}_ct.nii.gz", folder / organs_name(number)
    for path in paths:
        if not path.is_file():
            raise NotExplained(f"Expected {path.relative_to(folder)} in the report folder")
    ct, organs = nib.load(paths[0]), nib.load(paths[1])
    affine = torch.from_numpy(np.asarray(ct.affine, dtype=np.float64))
    hu = torch.from_numpy(np.asarray(ct.dataobj, dtype=np.float32))
    labels = torch.from_numpy(np.asarray(organs.dataobj).astype(np.uint8))
    if labels.shape != hu.shape:
        raise NotExplained(f"Expected organs on voxels {tuple(hu.shape)}, got {labels.shape}")
    grid = MetaTensor(hu[None].contiguous(), affine=affine)
    return Kept(grid, describe(labels.contiguous(), affine))


def finding_of(target: Target, data: dict[str, Any]) -> Finding:
    """One target of report.json as a Finding, without its files."""
    rule_out, rule_in = data["rule_out"], data["rule_in"]
    return Finding(
        target,
        Verdict(data["verdict"]),
        data["probability"],
        data["series_instance_uid"],
        side=data.get("side"),
        grade=data.get("grade"),
        rule_out=rule_out and Cutoff(**rule_out),
        rule_in=rule_in and Cutoff(**rule_in),
        key_slices=tuple(KeySlice(**key) for key in data["key_slices"]),
        saliency=data["saliency"],
    )


def _place(path: Path) -> Volume:
    """Where the original CT lies, as a volume without voxels of its own (they take no memory)."""
    if not path.is_file():
        raise NotExplained(f"Expected {path.name} in the report folder")
    image = nib.load(path)
    affine = torch.from_numpy(np.asarray(image.affine, dtype=np.float64))
    empty = torch.zeros(1).expand(1, *image.shape)
    return Volume(MetaTensor(empty, affine=affine), (), Series("", "", ()))


def _on_grid(finding: Finding, straight: Volume, grid: MetaTensor) -> Finding:
    """Key slices by their place on the working grid."""
    there, here = straight.hu.affine.double(), grid.affine.double()

    def moved(key: KeySlice) -> KeySlice:
        z = float(there[2, 3] + there[2, 2] * key.index)
        k = round((z - float(here[2, 3])) / float(here[2, 2]))
        return replace(key, index=min(max(k, 0), int(grid.shape[3]) - 1))

    return replace(finding, key_slices=tuple(moved(key) for key in finding.key_slices))

"""The vocabulary of the project: read this file first, `pipeline.py` second.

The data goes one way:

    Study -> Series -> Stack -> Volume -> Anatomy, Scope -> TargetScore -> Finding -> Report
    dicom    dicom     dicom    imaging   inference         inference      decision   results

Conventions, everywhere: voxel arrays are (X, Y, Z); world coordinates are RAS+ in millimetres;
intensities are Hounsfield units (HU); times are seconds. `affine` maps a voxel index (i, j, k) to
RAS+ mm as in NIfTI. Only the standard library is imported at run time, so that light commands
stay light.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from monai.data import MetaTensor
    from numpy.typing import NDArray

DISCLAIMER = "Research use only - not for clinical use"


class Target(StrEnum):
    """One of the five questions. Bowel includes the mesentery; kidney means either kidney."""

    BOWEL = "bowel"
    EXTRAVASATION = "extravasation"
    KIDNEY = "kidney"
    LIVER = "liver"
    SPLEEN = "spleen"


TARGETS: tuple[Target, ...] = tuple(Target)


class Verdict(StrEnum):
    """What is said of one target (see `decision.verdicts` for the rules)."""

    SUSPECTED = "suspected"  # score >= rule-in: the only verdict that alarms
    NOT_EXCLUDED = "not_excluded"  # score >= rule-out: neutral
    NO_FINDING = "no_finding"  # score < rule-out, and the cutoff's certificate holds
    UNCERTIFIED = (
        "uncertified"  # not suspected, and the certificate does not hold: rules nothing out
    )
    NOT_ASSESSED = "not_assessed"  # could not be judged; always with a reason, never negative


class Status(StrEnum):
    """Where a study stands."""

    RECEIVED = "received"
    ANALYSING = "analysing"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not_analysed"
    NOT_APPLICABLE = "not_applicable"


class Priority(StrEnum):
    """Suggested priority; the hospital's own list is never reordered."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


class Phase(StrEnum):
    """Contrast phase, judged from the voxels."""

    PLAIN = "plain"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal_venous"
    DELAYED = "delayed"
    UNKNOWN = "unknown"


class Organ(StrEnum):
    """What the localiser finds. Right and left are the patient's."""

    LIVER = "liver"
    SPLEEN = "spleen"
    KIDNEY_RIGHT = "kidney_right"
    KIDNEY_LEFT = "kidney_left"
    BOWEL = "bowel"
    AORTA = "aorta"
    SPINE = "spine"


# Label value of an organ in `Anatomy.labels`; 0 is background.
ORGAN_LABEL: dict[Organ, int] = {organ: i for i, organ in enumerate(Organ, start=1)}

# Organs whose region carries the decision about a target.
TARGET_ORGANS: dict[Target, tuple[Organ, ...]] = {
    Target.BOWEL: (Organ.BOWEL,),
    Target.EXTRAVASATION: (
        Organ.LIVER,
        Organ.SPLEEN,
        Organ.KIDNEY_RIGHT,
        Organ.KIDNEY_LEFT,
        Organ.BOWEL,
    ),
    Target.KIDNEY: (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT),
    Target.LIVER: (Organ.LIVER,),
    Target.SPLEEN: (Organ.SPLEEN,),
}


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM instance (slice) of a series; `sop_instance_uid` is empty for NIfTI, NRRD, MHA."""

    path: Path
    sop_instance_uid: str = ""
    instance_number: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One series as its headers describe it; no pixel was decoded yet.

    `instances` are in no particular order. `facts` holds header values by DICOM keyword that later
    stages may compare with the voxels (Modality, PatientAge, BodyPartExamined, Manufacturer,
    SeriesDescription, ...); patient identity never goes in there.
    """

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[Instance, ...]
    kind: str = "dicom"  # dicom | nifti | nrrd | mha
    facts: dict[str, Any] = field(default_factory=dict)
    simulated: bool = False  # the header says that this patient is simulated
    why_chosen: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """All series of one study, eligible ones first and sorted by preference."""

    study_instance_uid: str
    series: tuple[Series, ...]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Stack:
    """A decoded, gated series in the scanner's own axes.

    `hu`: float32 or int16 (X, Y, Z) = (column, row, slice), HU. `affine`: (4, 4) index -> RAS+ mm.
    `instances[k]` is the slice `hu[:, :, k]` (empty for files that have no instances).
    `padding` marks voxels outside the reconstruction circle (None: none known).
    """

    hu: NDArray[Any]
    affine: NDArray[np.float64]
    instances: tuple[Instance, ...]
    series: Series
    padding: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Volume:
    """One series in HU, axes nearest to RAS+.

    `hu`: MetaTensor float32 (1, X, Y, Z). `instances[k]` is the slice `hu[0, :, :, k]`.
    """

    hu: MetaTensor
    instances: tuple[Instance, ...]
    series: Series
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along X, Y, Z, from real positions."""
        x, y, z = (float(v) for v in self.hu.pixdim)
        return x, y, z


@dataclass(slots=True)
class Anatomy:
    """What the localiser saw, on the working grid.

    `labels`: MetaTensor uint8 (1, X, Y, Z) with the values of `ORGAN_LABEL`.
    `volume_ml[organ]`: size found. `complete[organ]`: neither end of the scan cuts it off.
    `cut`: solid organs that an end shows, however little of them was found.
    """

    labels: MetaTensor
    volume_ml: dict[Organ, float]
    complete: dict[Organ, bool]
    cut: frozenset[Organ] = frozenset()


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be judged on this series: contrast phase, and targets that cannot be assessed."""

    phase: Phase
    aorta_hu: float | None
    not_assessed: dict[Target, str] = field(default_factory=dict)  # target -> reason code
    partial: frozenset[Target] = frozenset()  # organ cut off: may be suspected, never less
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class TargetScore:
    """What the networks say of one target on one series, before calibration.

    `slice_logits`: float32 (members, slices), the members' logits; `slice_z`: (slices,) height of
    each judged slice in mm (RAS+ z of the working grid's slice index). `ensemble` and `volume` are
    study-level logits of the two branches, `fused` the one that is decided on.
    """

    target: Target
    fused: float
    ensemble: float
    volume: float | None
    slice_logits: torch.Tensor
    slice_z: torch.Tensor
    side: str | None = None  # kidney: "right", "left", "both"
    grade: str | None = None  # "low", "high"
    pooled: dict[str, float] = field(default_factory=dict)  # "top", "mean", "max" of slice logits


@dataclass(frozen=True, slots=True)
class Cutoff:
    """One operating point on the scale of the reported probability, with its certificate."""

    cutoff: float
    sensitivity_lower_bound: float | None = None  # rule-out: 95 % one-sided
    positives: int | None = None
    specificity: float | None = None  # rule-in


@dataclass(frozen=True, slots=True)
class KeySlice:
    """A slice that carries the decision; `index` counts from the patient's feet (Volume's z)."""

    sop_instance_uid: str
    instance_number: int | None
    index: int
    score: float


@dataclass(slots=True)
class Finding:
    """The answer to one question. `probability` is None if and only if not assessed."""

    target: Target
    verdict: Verdict
    probability: float | None
    series_instance_uid: str | None = None
    reason: str | None = None  # reason code, if not assessed
    side: str | None = None
    grade: str | None = None
    rule_out: Cutoff | None = None
    rule_in: Cutoff | None = None
    key_slices: tuple[KeySlice, ...] = ()
    saliency: str | None = None  # file name below the report's folder
    overlays: tuple[str, ...] = ()

    @property
    def flagged(self) -> bool:
        return self.verdict is Verdict.SUSPECTED


@dataclass(frozen=True, slots=True)
class BundleRef:
    """Which networks answered."""

    name: str
    version: str
    sha256: str
    calibrated_on: str  # "simulated" | "real"


@dataclass(frozen=True, slots=True)
class SeriesUsed:
    series_instance_uid: str
    phase: Phase
    slices: int
    why_chosen: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a study was not analysed: a code of `reasons.REASONS` with its message and fix."""

    code: str
    message: str
    fix: str


@dataclass(slots=True)
class Report:
    """Everything that leaves the pipeline; `results.report` writes it as report.json."""

    status: Status
    study_instance_uid: str | None
    reason: Refusal | None = None
    series: tuple[SeriesUsed, ...] = ()
    bundle: BundleRef | None = None
    priority: Priority = Priority.URGENT
    findings: dict[Target, Finding] = field(default_factory=dict)
    quality: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    disclaimer: str = DISCLAIMER

"""The tissues of a virtual patient and their attenuation in each contrast phase.

HU are means (standard deviation between patients beside them), gathered from the ranges usual in
abdominal CT at 120 kV: Bae KT, Radiology 2010;256:32-61 (vessels and organs by phase);
Lamba R et al., AJR 2014;203:1013-1020 (unenhanced organs); Shanmuganathan K, Radiology
2004;231:207-214 (blood: clotted 45-70, unclotted 30-45, active extravasation 85-370).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from triage.types import Organ, Phase


class Tissue(IntEnum):
    AIR = 0
    FAT = 1
    MUSCLE = 2
    BONE = 3
    LUNG = 4
    LIVER = 5
    SPLEEN = 6
    CORTEX_RIGHT = 7
    CORTEX_LEFT = 8
    MEDULLA_RIGHT = 9
    MEDULLA_LEFT = 10
    URINE = 11
    AORTA = 12
    VEIN = 13
    PORTAL = 14
    STOMACH_WALL = 15
    STOMACH_CONTENT = 16
    BOWEL_WALL = 17
    BOWEL_CONTENT = 18
    COLON_WALL = 19
    COLON_CONTENT = 20
    GAS = 21
    PANCREAS = 22
    GALLBLADDER = 23
    BLADDER = 24
    SOFT = 25
    HEART = 26
    SKIN = 27
    ARTERY = 28
    DISC = 29
    VERTEBRA = 30
    MYOCARDIUM = 31


class Attenuation(NamedTuple):
    """Mean HU by phase and the sd between patients."""

    plain: float
    arterial: float
    portal_venous: float
    delayed: float
    sd: float


HU: dict[Tissue, Attenuation] = {
    Tissue.AIR: Attenuation(-1000, -1000, -1000, -1000, 0),
    Tissue.FAT: Attenuation(-105, -104, -103, -103, 6),
    Tissue.MUSCLE: Attenuation(52, 58, 64, 64, 6),
    Tissue.BONE: Attenuation(120, 125, 130, 130, 50),
    Tissue.LUNG: Attenuation(-840, -830, -830, -830, 30),
    Tissue.LIVER: Attenuation(57, 70, 112, 98, 10),
    Tissue.SPLEEN: Attenuation(48, 115, 122, 102, 9),
    Tissue.CORTEX_RIGHT: Attenuation(33, 185, 190, 165, 18),
    Tissue.CORTEX_LEFT: Attenuation(33, 185, 190, 165, 18),
    Tissue.MEDULLA_RIGHT: Attenuation(33, 75, 165, 165, 14),
    Tissue.MEDULLA_LEFT: Attenuation(33, 75, 165, 165, 14),
    Tissue.URINE: Attenuation(5, 6, 10, 350, 8),
    Tissue.AORTA: Attenuation(42, 310, 160, 115, 22),
    Tissue.VEIN: Attenuation(42, 70, 145, 115, 14),
    Tissue.PORTAL: Attenuation(42, 110, 168, 118, 15),
    Tissue.STOMACH_WALL: Attenuation(40, 72, 85, 80, 9),
    Tissue.STOMACH_CONTENT: Attenuation(22, 22, 22, 22, 14),
    Tissue.BOWEL_WALL: Attenuation(40, 88, 92, 84, 11),
    Tissue.BOWEL_CONTENT: Attenuation(16, 16, 16, 16, 8),
    Tissue.COLON_WALL: Attenuation(40, 66, 78, 78, 9),
    Tissue.COLON_CONTENT: Attenuation(35, 35, 35, 35, 18),
    Tissue.GAS: Attenuation(-960, -960, -960, -960, 15),
    Tissue.PANCREAS: Attenuation(42, 100, 92, 76, 10),
    Tissue.GALLBLADDER: Attenuation(9, 9, 10, 10, 5),
    Tissue.BLADDER: Attenuation(5, 5, 8, 120, 5),
    Tissue.SOFT: Attenuation(40, 60, 75, 75, 8),
    Tissue.HEART: Attenuation(44, 220, 145, 115, 18),
    Tissue.SKIN: Attenuation(20, 25, 30, 30, 8),
    Tissue.ARTERY: Attenuation(42, 290, 155, 113, 20),
    Tissue.DISC: Attenuation(75, 78, 80, 80, 8),
    Tissue.VERTEBRA: Attenuation(150, 155, 165, 160, 45),
    Tissue.MYOCARDIUM: Attenuation(45, 100, 105, 92, 10),
}


def mean_hu(tissue: Tissue, phase: Phase) -> float:
    """Mean HU of a tissue in a phase; the phase must be known."""
    return float(getattr(HU[tissue], phase.value))


# Localiser class of each tissue that belongs to an organ.
ORGAN_TISSUES: dict[Organ, tuple[Tissue, ...]] = {
    Organ.LIVER: (Tissue.LIVER,),
    Organ.SPLEEN: (Tissue.SPLEEN,),
    Organ.KIDNEY_RIGHT: (Tissue.CORTEX_RIGHT, Tissue.MEDULLA_RIGHT),
    Organ.KIDNEY_LEFT: (Tissue.CORTEX_LEFT, Tissue.MEDULLA_LEFT),
    Organ.BOWEL: (
        Tissue.BOWEL_WALL,
        Tissue.BOWEL_CONTENT,
        Tissue.COLON_WALL,
        Tissue.COLON_CONTENT,
        Tissue.GAS,
    ),
    Organ.AORTA: (Tissue.AORTA,),
    Organ.SPINE: (Tissue.VERTEBRA,),
}

# Names of the 117-structure label convention (TotalSegmentator v2) by tissue: prefix -> tissue.
LABEL_PREFIXES: tuple[tuple[str, Tissue], ...] = (
    ("spleen", Tissue.SPLEEN),
    ("kidney_cyst_right", Tissue.CORTEX_RIGHT),
    ("kidney_cyst_left", Tissue.CORTEX_LEFT),
    ("kidney_right", Tissue.CORTEX_RIGHT),
    ("kidney_left", Tissue.CORTEX_LEFT),
    ("gallbladder", Tissue.GALLBLADDER),
    ("liver", Tissue.LIVER),
    ("stomach", Tissue.STOMACH_CONTENT),
    ("pancreas", Tissue.PANCREAS),
    ("adrenal_gland", Tissue.SOFT),
    ("lung_", Tissue.LUNG),
    ("esophagus", Tissue.SOFT),
    ("trachea", Tissue.GAS),
    ("thyroid_gland", Tissue.SOFT),
    ("small_bowel", Tissue.BOWEL_CONTENT),
    ("duodenum", Tissue.BOWEL_CONTENT),
    ("colon", Tissue.COLON_CONTENT),
    ("urinary_bladder", Tissue.BLADDER),
    ("prostate", Tissue.SOFT),
    ("sacrum", Tissue.VERTEBRA),
    ("vertebrae_", Tissue.VERTEBRA),
    ("heart", Tissue.HEART),
    ("atrial_appendage", Tissue.HEART),
    ("aorta", Tissue.AORTA),
    ("brachiocephalic_trunk", Tissue.ARTERY),
    ("subclavian_artery", Tissue.ARTERY),
    ("common_carotid_artery", Tissue.ARTERY),
    ("iliac_artery", Tissue.ARTERY),
    ("pulmonary_vein", Tissue.HEART),
    ("brachiocephalic_vein", Tissue.VEIN),
    ("superior_vena_cava", Tissue.VEIN),
    ("inferior_vena_cava", Tissue.VEIN),
    ("iliac_vena", Tissue.VEIN),
    ("portal_vein_and_splenic_vein", Tissue.PORTAL),
    ("spinal_cord", Tissue.SOFT),
    ("gluteus_", Tissue.MUSCLE),
    ("autochthon", Tissue.MUSCLE),
    ("iliopsoas", Tissue.MUSCLE),
    ("brain", Tissue.SOFT),
    ("costal_cartilages", Tissue.DISC),
    ("humerus", Tissue.BONE),
    ("scapula", Tissue.BONE),
    ("clavicula", Tissue.BONE),
    ("femur", Tissue.BONE),
    ("hip_", Tissue.BONE),
    ("skull", Tissue.BONE),
    ("rib_", Tissue.BONE),
    ("sternum", Tissue.BONE),
)


def tissue_of(label_name: str) -> Tissue | None:
    """Tissue of a label name, or None if the name is unknown."""
    for prefix, tissue in LABEL_PREFIXES:
        if label_name.startswith(prefix):
            return tissue
    return None

"""Every code that our DICOM objects, FHIR and HL7 use, with its source: one place.

SNOMED CT codes stand here only where a public source names them for exactly this meaning; what has
no such code carries one of our own (designator 99TRIAGE) and keeps its meaning in words.

Sources
-------
PS3.16   DICOM PS3.16, context groups and annex D, as pydicom 3.0 lists them.
RCR      SNOMED CT codes of radiology report templates: hepatic trauma, splenic injury grading,
         renal injury grading (RSNA RadReport, `SNAF` bindings).
SCT      SNOMED CT as published value sets and maps name it ("Intestinal structure").
own      ours; meaning in words beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from triage.types import Organ, Target, Verdict

PROGRAM = "trauma-ct-triage"  # Manufacturer of our objects
OWN = "99TRIAGE"
OWN_NAME = f"{PROGRAM}: own codes of a research program"


class Code(NamedTuple):
    """A coded concept (PS3.3 section 8): value, designator, meaning; and where it is from."""

    value: str
    scheme: str
    meaning: str
    source: str = "PS3.16"


def own(value: str, meaning: str) -> Code:
    return Code(value, OWN, meaning, "own")


ORGANS: dict[Organ, Code] = {
    Organ.LIVER: Code("10200004", "SCT", "Liver"),
    Organ.SPLEEN: Code("78961009", "SCT", "Spleen"),
    Organ.KIDNEY_RIGHT: Code("64033007", "SCT", "Kidney"),
    Organ.KIDNEY_LEFT: Code("64033007", "SCT", "Kidney"),
    Organ.BOWEL: Code("113276009", "SCT", "Intestine", "SCT"),
    Organ.AORTA: Code("15825003", "SCT", "Aorta"),
    Organ.SPINE: Code("421060004", "SCT", "Spine"),
}
# What the question is about. An injury that is looked for is not thereby found: see `VERDICT`.
FINDINGS: dict[Target, Code] = {
    Target.BOWEL: own("bowel_injury", "Injury of bowel or mesentery"),
    Target.EXTRAVASATION: own("extravasation", "Active extravasation of contrast medium"),
    Target.KIDNEY: Code("40095003", "SCT", "Injury of kidney", "RCR"),
    Target.LIVER: Code("39400004", "SCT", "Injury of liver", "RCR"),
    Target.SPLEEN: Code("23589004", "SCT", "Injury of spleen", "RCR"),
}
ABDOMEN = Code("818982008", "SCT", "Abdomen and Pelvis")
SITES: dict[Target, Code] = {
    Target.BOWEL: ORGANS[Organ.BOWEL],
    Target.EXTRAVASATION: ABDOMEN,
    Target.KIDNEY: ORGANS[Organ.KIDNEY_LEFT],
    Target.LIVER: ORGANS[Organ.LIVER],
    Target.SPLEEN: ORGANS[Organ.SPLEEN],
}
SIDES: dict[str, Code] = {
    "right": Code("24028007", "SCT", "Right"),
    "left": Code("7771000", "SCT", "Left"),
    "both": Code("51440002", "SCT", "Bilateral"),
}
VERDICT = own("verdict", "Verdict of the program")
VERDICTS: dict[Verdict, Code] = {
    Verdict.SUSPECTED: own("suspected", "Suspected: at or above the rule-in cutoff"),
    Verdict.NOT_EXCLUDED: own("not_excluded", "Not excluded: neutral"),
    Verdict.NO_FINDING: own("no_finding", "No finding: below the certified rule-out cutoff"),
    Verdict.UNCERTIFIED: own("uncertified", "Uncertified: rules nothing out"),
    Verdict.NOT_ASSESSED: own("not_assessed", "Not assessed: never negative"),
}
SCORE = own("score", "Score of the program, 0 to 1")
PROBABILITY = Code("122157", "DCM", "Probability")  # only where calibrated on real patients
RULE_IN = own("rule_in", "Rule-in cutoff of the score")
RULE_OUT = own("rule_out", "Rule-out cutoff of the score")
REASON = own("reason", "Reason why not assessed")
GRADE = own("grade", "Grade of injury as estimated")
GRADES: dict[str, Code] = {"low": own("low", "Low grade"), "high": own("high", "High grade")}
PRIORITY = own("priority", "Suggested reading priority")
CERTIFICATE = own("certificate", "What the verdict rests on")
NOTE = own("note", "Note")
HOT_SPOT = own("hot_spot", "Spot that spoke most for the finding")
TRIAGE = own("TRIAGE", "Abdominal trauma CT triage")

NO_UNITS = Code("1", "UCUM", "no units")
MILLILITRE = Code("mL", "UCUM", "mL")
MILLIMETRE = Code("mm", "UCUM", "mm")
VOLUME = Code("118565006", "SCT", "Volume")
SALIENCY = Code("130404", "DCM", "Saliency")
IMAGING = Code("363679005", "SCT", "Imaging procedure")
ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REPORT_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
AI = Code("123110", "DCM", "Artificial Intelligence")
CT = Code("CT", "DCM", "Computed Tomography")


def all_codes() -> list[Code]:
    """Every code of this module, each once."""
    found: dict[Code, None] = {}
    for value in globals().values():
        members = value.values() if isinstance(value, dict) else [value]
        found |= {code: None for code in members if isinstance(code, Code)}
    return list(found)

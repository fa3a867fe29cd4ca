"""De-identified copies of CT images for research (PS3.15 annex E; the rules: `confidentiality`).

A copy is written anew from a list of what may stay: nothing is copied that the list does not name.
Sequences do not stay, no mandatory module of the CT Image IOD has one. It runs in the child
(`deidentify_files`): the originals are untrusted.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage

from .confidentiality import (
    BASIC_PROFILE,
    IMAGE_TYPE,
    KEPT,
    MODIFIED_DATES,
    NEEDED,
    TYPE_2,
    TYPE_2C,
    profile,
)
from .headers import SIMULATOR
from .pseudonyms import Pseudonyms, shifted
from .syntax import CLASSIC_CT

SIMULATED = "SIMULATED PATIENT"
METHOD = "PS3.15 E.1 Basic Profile, by a list of what stays"
LEAST = 6  # characters of an identity that is looked for among what stays

# Why an image is left out: code -> what it means, for people.
LEFT_OUT: dict[str, str] = {
    "not_ct": "no CT image of one slice: others may hold a name as a picture or a document",
    "burned_in": "its header says that annotations are burnt in, or that a face can be seen",
    "secondary": "a screen shot, a localiser, or a reformatted image: they may show a name",
    "other_patient": "its header names another patient than the first image",
    "unreadable": "its header or its pixels cannot be read",
}


class LeftOut(Exception):
    """An image that is not exported; `code` of `LEFT_OUT`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"Expected a keyword of PS3.6, got {keyword!r}")
    return tag


def texts(data: Dataset, keyword: str) -> list[str]:
    """The values of an attribute as texts; none where it is missing, a sequence, or unreadable."""
    try:
        element = data.get(_tag(keyword))
        value = None if element is None or element.VR == "SQ" else element.value
    except Exception:  # pydicom raises what its converters raise: of such a value nothing stays
        return []
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(getattr(v, "original_string", v)).strip(" \0") for v in values if v is not None]


def identity(data: Dataset) -> str:
    """What tells patients apart: identifier and who issued it; else the study."""
    parts = [*texts(data, "PatientID")[:1], *texts(data, "IssuerOfPatientID")[:1]]
    known = "\0".join(parts).strip("\0")
    return known or "study " + "".join(texts(data, "StudyInstanceUID")[:1])


# ---- one header


def deidentified(data: Dataset, names: Pseudonyms, *, dates: bool = False) -> Dataset:
    """A new header for research, without pixels. `dates`: they are shifted, not removed.

    Raises LeftOut.
    """
    _refuse_pictures(data)
    patient = identity(data)
    known = _identities(data)
    new = Dataset()
    _apply_profile(new, data, names, names.days(patient) if dates else None)
    for keyword, fits in KEPT.items():
        values = [v for v in texts(data, keyword) if v not in known]
        if values and all(_fits(v, fits) for v in values):
            _set(new, keyword, values)
    if any(keyword not in new for keyword in NEEDED):
        raise LeftOut("unreadable")
    for keyword in TYPE_2:
        if keyword not in new:
            setattr(new, keyword, None)
    told = [t.upper() for t in texts(data, "ImageType")[: len(IMAGE_TYPE)]]
    new.ImageType = [
        said if said in terms else terms[0]
        for said, terms in zip([*told, "", "", ""], IMAGE_TYPE, strict=False)
    ]
    new.SOPClassUID = CTImageStorage
    new.PatientID = names.patient(patient)
    new.PatientName = f"{new.PatientID}^RESEARCH"
    _say_how(new, dates)
    if is_simulated(data):  # else it would be taken for an image of a person
        new.Manufacturer, new.ImageComments = SIMULATOR, SIMULATED
    return new


def _refuse_pictures(data: Dataset) -> None:
    if texts(data, "SOPClassUID") != [CLASSIC_CT] or texts(data, "Modality") != ["CT"]:
        raise LeftOut("not_ct")
    if "YES" in (texts(data, "BurnedInAnnotation") + texts(data, "RecognizableVisualFeatures")):
        raise LeftOut("burned_in")
    kind = {t.upper() for t in texts(data, "ImageType")}
    clean = texts(data, "BurnedInAnnotation") == ["NO"]
    if "LOCALIZER" in kind or (kind & {"SECONDARY", "SCREEN SAVE"} and not clean):
        raise LeftOut("secondary")


def is_simulated(data: Dataset) -> bool:
    """As the gate sees it (`headers`): our simulator made it."""
    comments = " ".join(texts(data, "ImageComments"))
    return texts(data, "Manufacturer") == [SIMULATOR] and SIMULATED in comments


def _identities(data: Dataset) -> frozenset[str]:
    """Values that name somebody: nothing that equals one stays, whatever attribute it stands in."""
    keywords = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID")
    return frozenset(v for k in keywords for v in texts(data, k) if len(v) >= LEAST)


def _apply_profile(new: Dataset, data: Dataset, names: Pseudonyms, days: int | None) -> None:
    """What the profile's table says of each attribute that is there; X needs nothing done."""
    empty = {_tag(k) for k in (*TYPE_2, *TYPE_2C)}
    for tag in data.keys() & profile().keys():
        rule, keyword, vr = profile()[tag], keyword_for_tag(tag), _vr(tag)
        if vr == "UI" and "U" in rule.actions:
            _set(new, keyword, [names.uid(v) for v in texts(data, keyword) if v])
        elif days is not None and rule.dates and vr in ("DA", "DT", "TM"):
            _set(new, keyword, _moved(texts(data, keyword), vr, days))
        if tag in empty and keyword not in new:
            setattr(new, keyword, None)


def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _moved(values: list[str], vr: str, days: int) -> list[str]:
    if vr == "TM":  # whole days: the time of day stays
        return [v for v in values if re.fullmatch(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", v)]
    return [moved for v in values if (moved := shifted(v, days))]


def _fits(value: str, fits: re.Pattern[str] | tuple[str, ...]) -> bool:
    if isinstance(fits, tuple):
        return value in fits
    return fits.fullmatch(value) is not None


def _set(new: Dataset, keyword: str, values: list[str]) -> None:
    if not values:
        return
    vr = dictionary_VR(_tag(keyword))
    own: list[Any] = list(values)
    if vr in ("FD", "FL"):
        own = [float(v) for v in values]
    setattr(new, keyword, own[0] if len(own) == 1 else own)


def _say_how(new: Dataset, dates: bool) -> None:
    """PS3.15 E.1.1, step 6, and PS3.3 C.12.1.1.7."""
    new.PatientIdentityRemoved = "YES"
    new.DeidentificationMethod = METHOD
    new.LongitudinalTemporalInformationModified = "MODIFIED" if dates else "REMOVED"
    items = []
    for value, meaning in (BASIC_PROFILE, *([MODIFIED_DATES] if dates else [])):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        items.append(item)
    new.DeidentificationMethodCodeSequence = items

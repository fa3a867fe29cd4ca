"""Frames of an Enhanced CT as if each were an image of its own, and back again.

highdicom describes single images well. So every frame gets a name of its own while an object is
built; `mend_frames` then puts the true instance and the number of its frame in place of the name.
"""

from __future__ import annotations

from typing import Any

from pydicom import Dataset

from triage.results.dicom.source import Slices
from triage.results.dicom.uids import uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def described(slices: Slices, k: int) -> Dataset:
    """The header of slice k; under a name of its own where it is a frame of many."""
    item = slices.slices[k]
    header = slices.headers[k]
    if item.frames == 1:
        return header
    alone = Dataset()
    alone.update(header)
    del alone.SOPClassUID, alone.SOPInstanceUID  # the elements are shared: never set their values
    alone.SOPClassUID, alone.SOPInstanceUID = CT_IMAGE, _name(slices, k)
    return alone


def _name(slices: Slices, k: int) -> str:
    return uid(slices.slices[k].sop_instance, f"frame {slices.slices[k].frame}")


def mend_frames(data: Any, slices: Slices) -> None:
    """Replace the made-up names in `data`; nothing happens where the source is classic."""
    if all(item.frames == 1 for item in slices.slices):
        return
    names = {_name(slices, k): item for k, item in enumerate(slices.slices)}
    data.walk(lambda parent, element: _mend(parent, element, names), recursive=True)


def _mend(parent: Dataset, element: Any, names: dict[str, Any]) -> None:
    if element.VR != "SQ":
        return
    kept: dict[str, Dataset] = {}
    for number, reference in enumerate(element.value):
        name = str(reference.get("ReferencedSOPInstanceUID", number))
        item = names.get(name)
        if item is not None:
            reference.ReferencedSOPClassUID = item.sop_class
            reference.ReferencedSOPInstanceUID = item.sop_instance
            if element.keyword == "SourceImageSequence":
                reference.ReferencedFrameNumber = item.frame + 1
            name = item.sop_instance
        kept.setdefault(name, reference)
    if len(kept) < len(element.value):
        element.value = list(kept.values())

"""What goes through the intake: where a file comes from, how far it is, what became of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum

from triage.dicom.headers import made_up_uid
from triage.service.images.files import Incoming
from triage.service.intake.header import Header


class State(StrEnum):
    STORED = "stored"
    DUPLICATE = "duplicate"  # the same image is there already; nothing changed
    QUARANTINED = "quarantined"  # taken, but of no study: see records.quarantine.REASONS
    IGNORED = "ignored"  # no image: a DICOMDIR, or a result of ours that comes back


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image comes from. `route`: dimse, stow, upload, watch, pull or cohort."""

    route: str
    sender: str = ""  # AE title, user or address
    background: bool = False  # retrospective: live studies go first, no deadline
    transfer: bool = False  # one of several: whoever sends says when that was all


@dataclass(frozen=True, slots=True)
class Claim:
    """What the sender said the file would be; empty: nothing."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""

    def fits(self, header: Header) -> bool:
        return (
            self.sop_class_uid in ("", header.sop_class_uid)
            and self.sop_instance_uid in ("", header.sop_instance_uid)
            and self.study_instance_uid in ("", header.study_instance_uid)
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of one file; it is on the disk and in the database."""

    state: State
    study_id: str | None = None
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    reason: str = ""  # if quarantined
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Touched:
    """A study that got new images with a commit."""

    study_id: str
    images_version: int
    all_there: bool = False  # as many as the study or its order announced
    series_there: bool = False  # as many as each of its series announced
    background: bool = False


class NotStoredError(RuntimeError):
    """The image was not taken, and nothing of it remains: the sender must send it again.

    `full`: no space is left; else the database is locked or the disk cannot be written.
    """

    def __init__(self, text: str, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


@dataclass(slots=True)
class Prepared:
    """A file that is on the disk under its temporary name and waits for the commit."""

    file: Incoming
    source: Source
    sha256: str
    header: Header | None  # None: to be quarantined with `reason`
    reason: str = ""
    detail: str = ""
    unwanted: bool = False  # the same file lies in quarantine already
    done: Future[Accepted] = field(default_factory=Future)

    @property
    def uid(self) -> str:
        """SOPInstanceUID; together with `sha256` it says which image this is."""
        uid = self.header.sop_instance_uid if self.header else ""
        return uid or made_up_uid(f"no SOP UID {self.sha256}")

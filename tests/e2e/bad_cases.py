"""The malformed set (`TRIAGE_TEST_DATA`) and what its own table asks for each case."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from triage.reasons import NotAnalysed
from triage.service.intake.header import read_header

ROOT = Path(os.environ.get("TRIAGE_TEST_DATA", Path(__file__).parents[3] / "shared")) / "badinputs"
GOOD = ROOT / "geometry" / "good"
UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")  # PS3.5 section 9.1


@dataclass(frozen=True)
class Case:
    """`expected`: analysed, not_analysed or either. `reason`: codes of which any is right."""

    name: str
    expected: str
    reason: str
    number: int = 0  # its place in the table

    @property
    def path(self) -> Path:
        return ROOT / self.name

    def files(self) -> list[bytes]:
        """All its files; of a folder with a VERSION or a README these, too. Single files get UIDs
        of their own: many of the set share theirs, and would be one study."""
        if self.path.is_file():
            return [_renamed(self.path.read_bytes(), f"{100 + self.number}")]
        return [path.read_bytes() for path in sorted(self.path.rglob("*")) if path.is_file()]

    def allows(self, code: str) -> bool:
        """Whether the table lets a case be refused for this reason. `any`: for every one."""
        return self.reason.startswith("any") or code in self.reason.replace(",", " ").split()

    @property
    def may_be_analysed(self) -> bool:
        return self.expected in ("analysed", "either")

    @property
    def may_be_refused(self) -> bool:
        return self.expected in ("not_analysed", "either")


@dataclass
class Row:
    """What came of one case. `answer`: analysed, not_analysed, refused (at the door), kept (by the
    sender: such objects are not offered, or the association was aborted)."""

    entrance: str
    way: str
    case: str
    asked: str
    answer: str
    reasons: tuple[str, ...] = ()
    wrong: str = ""  # empty: it is right
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}


def _renamed(data: bytes, ending: str) -> bytes:
    """With another ending of the same length for its UIDs; as it is where that cannot be."""
    try:
        header = read_header(data)
    except NotAnalysed:
        return data
    uids = {header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid}
    plain = {uid.encode() for uid in uids if UID.fullmatch(uid) and len(uid) > 2 * len(ending)}
    if header.study_instance_uid.encode() not in data or not plain:
        return data  # a packed data set, or made-up UIDs
    either = b"|".join(re.escape(uid) for uid in sorted(plain, key=len, reverse=True))
    pattern = re.compile(b"(?:" + either + b")(?![0-9.])")
    return pattern.sub(lambda found: found[0][: -len(ending)] + ending.encode(), data)


def cases(*expected: str) -> list[Case]:
    """All, or those of which one of these is expected; none where the data are not there."""
    if not (ROOT / "cases.tsv").is_file():
        return []
    with (ROOT / "cases.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = [Case(r["case"], r["expected"], r["reason"], n) for n, r in enumerate(rows)]
    return [case for case in found if not expected or case.expected in expected]


def few(every: list[Case]) -> list[Case]:
    """A case of each kind that a receiver can tell apart."""
    named = ("truncated_slice", "mixed_patient", "not_ct", "element_length_4g", "preamble_elf")
    chosen = [case for case in every if any(name in case.name for name in named)]
    fuzz = [case for case in every if case.name.startswith("fuzz/")]
    return [*chosen, *fuzz[::40]]


def row_of(
    entrance: str, way: str, case: Case, answer: str, reasons: tuple[str, ...], note: str = ""
) -> Row:
    """Judged by the table: a verdict only where it allows one, and no reason but the right ones."""
    asked = f"{case.expected} {case.reason}".strip()
    row = Row(entrance, way, case.name, asked, answer, reasons, note=note)
    if answer == "analysed" and not case.may_be_analysed:
        row.wrong = "it was analysed"
    elif answer != "analysed" and not case.may_be_refused:
        row.wrong = "it was not analysed"
    elif answer in ("not_analysed", "refused") and not any(map(case.allows, reasons)):
        # a UID that cannot be announced is not the one that was announced
        announced = answer == "refused" and "MISMATCH" in reasons and case.allows("BAD_UID")
        row.wrong = "" if announced else "for another reason"
    return row

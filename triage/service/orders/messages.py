"""HL7 v2 orders: ORM^O01 (chapter 4.4.1) and OMI^O23 (4.4.10), and their acknowledgement.

Where the values stand: accession number in IPC-1, else OBR-18 (IHE Scheduled Workflow), else the
filler's number (OBR-3, ORC-3), else the placer's; priority in TQ1-9, else OBR-27.6, else OBR-5;
body part in OBR-15.4, else the words of OBR-4; side in OBR-15.5, else in those words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from triage.dicom.charset import clean
from triage.results.hl7 import escape, field, header, parsed, segment, time_of
from triage.results.priorities import ORDERED_HL7
from triage.service.orders.compare import side_of
from triage.service.records.orders import Ordered

TYPES = {("ORM", "O01"), ("OMI", "O23")}
_CANCEL = {"CA", "OC", "CR", "DC"}  # ORC-1, table 0119
_ACK = {"ORM": "ACK^O01^ACK", "OMI": "ORI^O24^ORI_O24"}


class OrderError(ValueError):
    """The message cannot be used. `code`: AE or AR of table 0008; the text names no patient."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def ordered(message: str) -> list[Ordered]:
    """The orders of one message. Raises OrderError."""
    try:
        lines = parsed(message)
    except ValueError as error:
        raise OrderError("AR", str(error)) from error
    kind = field(lines[0], 9), field(lines[0], 9, 2)
    if kind not in TYPES:
        raise OrderError("AR", "expected ORM^O01 or OMI^O23")
    pid = next((line for line in lines if line[0] == "PID"), ["PID"])
    starts = [i for i, line in enumerate(lines) if line[0] == "ORC"]
    if not starts:
        raise OrderError("AE", "there is no ORC")
    groups = [lines[a:b] for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]
    return [_one(group, pid) for group in groups]


def _one(group: Sequence[Sequence[str]], pid: Sequence[str]) -> Ordered:
    first = {line[0]: line for line in reversed(group)}
    orc, obr = first["ORC"], first.get("OBR", ["OBR"])
    ipc, tq1 = first.get("IPC", ["IPC"]), first.get("TQ1", ["TQ1"])
    accession = _any(
        field(ipc, 1), field(obr, 18), field(obr, 3), field(orc, 3), field(obr, 2), field(orc, 2)
    )
    if not accession:
        raise OrderError("AE", "there is no accession or order number")
    words = _any(field(obr, 4, 2), field(obr, 4, 5), field(obr, 4))
    priority = _any(field(tq1, 9), field(obr, 27, 6), field(orc, 7, 6), field(obr, 5))
    return Ordered(
        accession_number=clean(accession)[:64],
        placer_order_number=clean(_any(field(orc, 2), field(obr, 2)))[:64],
        patient_id=clean(field(pid, 3))[:64],
        priority=ORDERED_HL7.get(priority[:1].upper(), "routine"),
        body_part=clean(_any(field(obr, 15, 4), words))[:64],
        side=side_of(_any(field(obr, 15, 5), words)),
        cancelled=field(orc, 1).upper() in _CANCEL,
    )


def _any(*values: str) -> str:
    return next((value for value in values if value), "")


def acknowledgement(message: str, code: str, text: str = "") -> str:
    """ACK or ORI^O24 for a message, as far as it can be read."""
    try:
        lines = parsed(message)
        control, kind = field(lines[0], 10), field(lines[0], 9)
    except ValueError:
        control, kind = "", "ORM"
    moment = time_of(datetime.now(UTC))
    msh = header(_ACK.get(kind, "ACK"), f"A{control}"[:20], moment)
    msa = segment(
        "MSA",
        {1: code, 2: escape(control), 3: escape(text)} if text else {1: code, 2: escape(control)},
    )
    return f"{msh}\r{msa}\r"

"""The one table of the suggested priority in other standards' words.

UPS: Scheduled Procedure Step Priority (0074,1200), PS3.3 C.30.2. HL7 v2: TQ1-9, table 0485. FHIR
R4: http://hl7.org/fhir/request-priority. It is a suggestion: nobody's list is reordered by it.
"""

from __future__ import annotations

from typing import NamedTuple

from triage.types import Priority


class Words(NamedTuple):
    ups: str
    hl7: str
    hl7_text: str
    fhir: str


PRIORITIES: dict[Priority, Words] = {
    Priority.STAT: Words("HIGH", "S", "Stat", "stat"),
    Priority.URGENT: Words("MEDIUM", "A", "ASAP", "urgent"),
    Priority.ROUTINE: Words("LOW", "R", "Routine", "routine"),
}
# What an order may say -> how the queue takes it.
ORDERED_HL7: dict[str, str] = {
    "S": "stat",
    "A": "stat",
    "T": "stat",
    "P": "routine",
    "R": "routine",
}
ORDERED_FHIR: dict[str, str] = {
    "stat": "stat",
    "asap": "stat",
    "urgent": "stat",
    "routine": "routine",
}

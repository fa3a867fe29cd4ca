"""The audit log: what was done, to what, by whom. Append-only, each row holds the hash before it.

A row's hash is the SHA-256 of its canonical JSON (keys sorted, no blanks, ASCII) with the hash of
the row before. `audit_head` holds the number of rows and the last hash, so that rows cut off the
end show as well. Whoever can write the whole database could write a new chain; against that stand
the copies elsewhere: heads that were noted (`audit.heads` in the home, the log of the service,
`triage audit-log verify --head`) and the rows that a log server got (`shipping`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Table, insert, select, text, update
from sqlalchemy.orm import Session

from triage.service.records.access_models import AuditHead
from triage.service.records.models import AuditEvent, now

START = "0" * 64  # stands for the hash before the first row
MAX_TEXT = 500  # characters of one text in a row
PAGE = 1000  # rows at a time when all are read

# What can be recorded -> what it means. `fhir.KINDS` says the same in the words of the standard.
ACTIONS: dict[str, str] = {
    "service.started": "the service took up its work",
    "service.stopped": "the service ended in order",
    "settings.changed": "settings differ from those of the last start",
    "login": "somebody logged in, or tried to",
    "logout": "somebody logged out",
    "access.refused": "a right was missing",
    "sender.refused": "DICOM from somebody who may not send",
    "user.added": "a new user",
    "user.changed": "password, roles, or disabled",
    "token.added": "a new API token",
    "token.revoked": "an API token is void",
    "image.received": "images of a study, by sender, once the study was complete",
    "study.opened": "somebody looked at a study",
    "list.opened": "somebody looked at the list of studies, or at what happens",
    "pacs.searched": "somebody looked for studies in the PACS",
    "study.exported": "pictures, maps or volumes left the service",
    "study.deidentified": "a study left the service without identity, for research",
    "study.acknowledged": "somebody has seen the result",
    "study.cancelled": "an analysis was stopped",
    "study.analysed": "an analysis was asked for once more",
    "study.deleted": "images, results and rows are gone",
    "finding.reviewed": "a reader agreed or disagreed",
    "delivery.sent": "a result was delivered",
    "delivery.failed": "a result could not be delivered",
    "order.received": "an order came",
    "bundle.changed": "another bundle answers than before",
    "drift.began": "what comes in, or is answered, no longer looks as it did",
    "drift.ended": "it looks as it did again",
    "audit.exported": "this log was read or exported",
}
OUTCOMES = ("success", "failure")
_FIRST = "INSERT INTO audit_head (id, count, hash) VALUES (1, 0, :hash) ON CONFLICT DO NOTHING"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def record(
    session: Session,
    action: str,
    actor: str,
    object: str,
    outcome: str = "success",
    details: Mapping[str, Any] | None = None,
) -> int:
    """Append one row in the caller's transaction; its number. Call it last: others wait from here.

    `object`: id of a study, name of a user: never a patient's name. `details`: texts, numbers,
    truth values, and lists and mappings of them. Raises ValueError for an unknown action.
    """
    if action not in ACTIONS or outcome not in OUTCOMES:
        raise ValueError(f"Expected an action of ACTIONS and an outcome, got {action} {outcome}")
    head = _head_for_update(session)
    row = {
        "id": head.count + 1,
        "at": now(),
        "actor": clean(actor),
        "action": action,
        "object": clean(object),
        "outcome": outcome,
        "details": clean(dict(details or {})),
        "previous_hash": head.hash,
    }
    row["hash"] = hash_of(row)
    session.execute(insert(AuditEvent), [row])
    session.execute(
        update(AuditHead)
        .where(AuditHead.id == 1)
        .values(count=row["id"], hash=row["hash"])
        .execution_options(synchronize_session=False)
    )
    return int(row["id"])


def _head_for_update(session: Session) -> Head:
    rows = select(AuditHead.count, AuditHead.hash).with_for_update()
    found = session.execute(rows).one_or_none()
    if found is None:  # the very first row, perhaps of two processes at once
        session.execute(text(_FIRST), {"hash": START})
        found = session.execute(rows).one()
    return Head(*found)


def clean(value: Any) -> Any:
    """Bounded, and nothing that a database, a terminal or a log line would stumble over."""
    if isinstance(value, str):
        return _CONTROL.sub(" ", value)[:MAX_TEXT]
    if isinstance(value, Mapping):
        return {clean(str(k)): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(v) for v in value]
    return value if value is None or isinstance(value, bool | int) else clean(str(value))


def hash_of(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row and of the hash before it, 64 hexadecimal digits."""
    fields = {
        "number": row["id"],
        "at": row["at"].isoformat(timespec="microseconds"),
        **{k: row[k] for k in ("actor", "action", "object", "outcome", "details")},
        "previous_hash": row["previous_hash"],
    }
    written = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(written.encode("ascii")).hexdigest()


# ---- reading and verifying


@dataclass(frozen=True, slots=True)
class Head:
    """Number of rows, and the hash of the last."""

    count: int
    hash: str

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


def parse_head(written: str) -> Head:
    """`COUNT:HASH` as `str(Head)` writes it. ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", written.strip())
    if found is None:
        raise ValueError(f"Expected COUNT:HASH, got {written[:80]!r}")
    return Head(int(found[1]), found[2])


def head(session: Session) -> Head:
    """As the database has it."""
    found = session.execute(select(AuditHead.count, AuditHead.hash)).one_or_none()
    return Head(*found) if found else Head(0, START)


def rows(session: Session, after: int = 0) -> Iterator[Mapping[str, Any]]:
    """Rows with a higher number, oldest first; keys as the columns of `AuditEvent`."""
    table = cast(Table, AuditEvent.__table__)
    while True:
        page = select(table).where(table.c.id > after).order_by(table.c.id).limit(PAGE)
        found = session.execute(page).mappings().all()
        yield from map(dict, found)
        if len(found) < PAGE:
            return
        after = found[-1]["id"]


@dataclass(frozen=True, slots=True)
class Verified:
    """`faults`: one line each; empty where nothing was changed, removed or reordered."""

    head: Head
    faults: list[str]


def verify(session: Session, noted: Sequence[Head] = ()) -> Verified:
    """Walk the whole chain; `noted`: heads that somebody wrote down elsewhere."""
    claimed = head(session)
    wanted = {one.count: one.hash for one in noted if one.count}
    faults: list[str] = []
    last = Head(0, START)
    for row in rows(session):
        number = row["id"]
        if number != last.count + 1:
            faults.append(f"row {last.count + 1}: missing (the next one is {number})")
        if row["previous_hash"] != last.hash:
            faults.append(f"row {number}: does not follow the row before it")
        if hash_of(row) != row["hash"]:
            faults.append(f"row {number}: changed")
        if wanted.pop(number, row["hash"]) != row["hash"]:
            faults.append(f"row {number}: not the one that was noted")
        last = Head(number, row["hash"])
    if claimed != last:
        faults.append(f"the end: {last.count} rows where {claimed.count} were written")
    faults += [f"row {count}: was noted and is gone" for count in sorted(wanted)]
    return Verified(last, faults)

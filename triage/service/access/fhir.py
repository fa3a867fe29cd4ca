"""A row of the audit log as FHIR R4 AuditEvent (hl7.org/fhir/R4/auditevent.html).

Types and subtypes are those of DICOM PS3.16 CID 400 and CID 401, which R4 binds (and PS3.15
A.5.3 says when each is used).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from triage import __version__

DCM = "http://dicom.nema.org/resources/ontology/DCM"
ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
CHAIN = "urn:trauma-ct-triage:audit-chain"  # our extension: the hashes of the row

DISPLAY = {  # PS3.16 CID 400 and 401
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110109": "Order Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110123": "Logout",
    "110126": "Node Authentication",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110136": "Security Roles Changed",
    "110137": "User Security Attributes Changed",
}


class Kind(NamedTuple):
    """How the standard calls an action: event type, subtype, and C, R, U, D or E."""

    type: str
    subtype: str | None
    action: str


KINDS: dict[str, Kind] = {
    "service.started": Kind("110100", "110120", "E"),
    "service.stopped": Kind("110100", "110121", "E"),
    "settings.changed": Kind("110113", "110131", "U"),
    "bundle.changed": Kind("110113", "110131", "U"),
    "drift.began": Kind("110100", None, "E"),
    "drift.ended": Kind("110100", None, "E"),
    "login": Kind("110114", "110122", "E"),
    "logout": Kind("110114", "110123", "E"),
    "access.refused": Kind("110113", "110132", "E"),
    "sender.refused": Kind("110113", "110126", "E"),
    "user.added": Kind("110113", "110137", "C"),
    "user.changed": Kind("110113", "110137", "U"),
    "token.added": Kind("110113", "110137", "C"),
    "token.revoked": Kind("110113", "110137", "D"),
    "image.received": Kind("110104", None, "C"),
    "list.opened": Kind("110112", None, "E"),
    "pacs.searched": Kind("110112", None, "E"),
    "study.opened": Kind("110103", None, "R"),
    "study.exported": Kind("110106", None, "R"),
    "study.deidentified": Kind("110106", None, "R"),
    "study.acknowledged": Kind("110111", None, "U"),
    "study.cancelled": Kind("110111", None, "U"),
    "study.analysed": Kind("110111", None, "U"),
    "study.deleted": Kind("110105", None, "D"),
    "finding.reviewed": Kind("110111", None, "U"),
    "delivery.sent": Kind("110106", None, "R"),
    "delivery.failed": Kind("110106", None, "R"),
    "order.received": Kind("110109", None, "C"),
    "audit.exported": Kind("110101", None, "R"),
}
OUTCOME = {"success": "0", "failure": "8"}  # R4: 0 success, 8 serious failure
# details that stand elsewhere in the event
_TOLD = ("address", "study_instance_uid")


def audit_event(row: Mapping[str, Any], site: str = "") -> dict[str, Any]:
    """The AuditEvent of one row of `audit.rows`; `site`: which of our services this is."""
    kind = KINDS[row["action"]]
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(row["id"]),
        "extension": [_chain(row)],
        "type": _dcm(kind.type),
        "action": kind.action,
        "recorded": row["at"].isoformat(timespec="microseconds"),
        "outcome": OUTCOME[row["outcome"]],
        "outcomeDesc": f"{row['action']}: {row['outcome']}",
        "agent": [_agent(row)],
        "source": {
            **({"site": site} if site else {}),
            "observer": {"display": f"trauma-ct-triage {__version__}"},
            "type": [{"system": SOURCE_TYPE, "code": "4", "display": "Application Server"}],
        },
        "entity": [_entity(row)],
    }
    if kind.subtype is not None:
        event["subtype"] = [_dcm(kind.subtype)]
    return event


def _dcm(code: str) -> dict[str, str]:
    return {"system": DCM, "code": code, "display": DISPLAY[code]}


def _chain(row: Mapping[str, Any]) -> dict[str, Any]:
    hashes = {"previous": row["previous_hash"], "hash": row["hash"]}
    return {"url": CHAIN, "extension": [{"url": k, "valueString": v} for k, v in hashes.items()]}


def _agent(row: Mapping[str, Any]) -> dict[str, Any]:
    name = row["actor"] or "unknown"
    agent: dict[str, Any] = {"who": {"display": name}, "altId": name, "requestor": True}
    if address := row["details"].get("address"):
        agent["network"] = {"address": address, "type": "2"}  # an IP address
    return agent


def _entity(row: Mapping[str, Any]) -> dict[str, Any]:
    """What it was done to: a study by its UID, else a name of ours."""
    details = row["details"]
    uid = details.get("study_instance_uid")
    what: dict[str, Any] = {"display": row["object"] or row["action"]}
    if uid:
        what["identifier"] = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    of_study = bool(uid) or row["action"].startswith(("study.", "image."))
    role = ("3", "Report") if of_study else ("4", "Domain Resource")
    entity: dict[str, Any] = {
        "what": what,
        "type": {"system": ENTITY_TYPE, "code": "2", "display": "System Object"},
        "role": {"system": OBJECT_ROLE, "code": role[0], "display": role[1]},
    }
    told = {k: v for k, v in details.items() if k not in _TOLD and v not in ("", None, [], {})}
    if told:
        entity["detail"] = [{"type": k, "valueString": _text(v)} for k, v in told.items()]
    return entity


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)

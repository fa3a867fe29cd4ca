"""What the audit log says when the service starts and stops, and which settings differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage import __version__
from triage.service.access import audit
from triage.service.records.models import AuditEvent
from triage.settings import Settings, without_secrets

ACTOR = "service"


def started(session: Session, settings: Settings) -> None:
    """Record the start, and what changed since the last one."""
    audit.record(session, "service.started", ACTOR, ACTOR, details={"version": __version__})
    after = shown(settings)
    last = (
        select(AuditEvent.details)
        .where(AuditEvent.action == "settings.changed")
        .order_by(AuditEvent.id.desc())
        .limit(1)
    )
    before = (session.scalar(last) or {}).get("settings") or {}
    changed = {
        name: [before.get(name), after.get(name)]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
    if changed:
        details = {"changed": changed, "settings": after}
        audit.record(session, "settings.changed", ACTOR, ACTOR, details=details)


def stopped(session: Session) -> None:
    audit.record(session, "service.stopped", ACTOR, ACTOR)


def shown(settings: Settings) -> Mapping[str, Any]:
    """The settings that are not the default, as texts, without what is secret in them."""
    found = {
        name: str(value)
        for name, value in without_secrets(settings).items()
        if getattr(settings, name) != type(settings).model_fields[name].default
    }
    cleaned: Mapping[str, Any] = audit.clean(found)
    return cleaned

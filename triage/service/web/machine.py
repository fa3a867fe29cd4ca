"""What the admin page shows: bundle, queue, workers, disk, senders, tokens, audit."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy.orm import Session

from triage.nets.bundle import CARD, BundleError, find_bundle, read_manifest
from triage.service.ready import checks
from triage.service.records import access_lists, analyses, lists, quarantine, studies
from triage.service.records.models import now
from triage.service.web import drift
from triage.service.web.listing import span
from triage.service.web.words import Words
from triage.settings import Settings

if TYPE_CHECKING:
    from triage.service.service import Service

LATE = timedelta(seconds=20)  # a worker that was not heard of for longer is lost
DAYS = 7  # senders of so many days
AUDIT = 50  # newest rows
FILES = 20


def machine(service: Service, words: Words) -> dict[str, Any]:
    """Everything on the page; a part that cannot be read says so and leaves the others alone."""
    with service.records.reading() as session:
        found = {
            "counts": studies.count_by_status(session),
            "waiting": lists.waiting(session),
            "under_way": _under_way(session, words),
            "workers": _workers(session, words),
            "senders": access_lists.senders(session, now() - timedelta(days=DAYS)),
            "users": access_lists.users(session),
            "tokens": access_lists.tokens(session),
            "audit": access_lists.newest_audit(session, AUDIT),
            "audit_rows": access_lists.audit_rows(session),
            "quarantine": quarantine.newest(session, FILES),
            "quarantined": sum(quarantine.count_by_reason(session).values()),
        }
    settings = service.settings
    allowed = [s.strip() for s in str(settings.senders).split(",") if s.strip()]
    return found | {
        "days": DAYS,
        "checks": checks(service),
        "drift": drift.card(service, words),
        "disk": _disk(service),
        "bundle": _bundle(settings.model),
        "allowed": allowed,
        "home": str(service.home),
        "retention": settings.retention_days,
        "dicom": dicom_address(settings),
    }


def dicom_address(settings: Settings) -> str:
    """Where images are sent to."""
    return f"{settings.ae_title} {settings.dicom_host}:{settings.dicom_port}"


def _under_way(session: Session, words: Words) -> list[dict[str, Any]]:
    return [
        {
            "study": a.study_id,
            "stage": words.known(f"stage.{a.stage}", a.stage),
            "fraction": a.fraction,
            "executor": a.executor,
            "attempts": a.attempts,
            "since": span((now() - a.started_at).total_seconds(), words),
        }
        for a in analyses.unfinished(session)
    ]


def _workers(session: Session, words: Words) -> list[dict[str, Any]]:
    at = now()
    return [
        {
            "executor": w.executor,
            "host": w.host,
            "since": w.started_at,
            "beat": span((at - w.heartbeat_at).total_seconds(), words),
            "late": at - w.heartbeat_at > LATE,
        }
        for w in analyses.workers(session)
    ]


def _disk(service: Service) -> dict[str, Any]:
    total, _, free = shutil.disk_usage(service.home)
    return {"free_gb": free / 1e9, "total_gb": total / 1e9, "used": 1 - free / total}


def _bundle(name: str) -> dict[str, Any]:
    """Name, version, what it was calibrated on, and the model card as markup."""
    try:
        folder = find_bundle(name)
        manifest = read_manifest(folder)
        card = (folder / CARD).read_text(encoding="utf-8")
    except (BundleError, OSError, ValueError) as error:
        return {"problem": str(error), "name": name}
    return {
        "problem": "",
        "name": manifest.name,
        "version": manifest.version,
        "calibrated_on": manifest.calibrated_on,
        "card": markdown(card),
    }


def markdown(text: str) -> Markup:
    """CommonMark with tables as markup; HTML inside stays text, links and images are plain text."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable(["image", "link", "autolink"])
    return Markup(reader.render(text))  # noqa: S704 - the reader escapes all else  # nosec B704

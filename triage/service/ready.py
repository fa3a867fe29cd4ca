"""What must be in order before a study can be analysed."""

from __future__ import annotations

import os

from triage.service.store import Store
from triage.service.worker import Worker
from triage.settings import Settings


def checks(settings: Settings, store: Store, worker: Worker) -> dict[str, str]:
    """Name of each check -> "ok", or what is wrong."""
    return {
        "bundle": _bundle(settings.model),
        "worker": "ok" if worker.alive else "the worker thread ended",
        "storage": "ok" if os.access(store.folder, os.W_OK) else f"cannot write {store.folder}",
    }


def _bundle(name: str) -> str:
    from triage.nets.bundle import BundleError, find_bundle, verify

    try:
        verify(find_bundle(name))
    except BundleError as error:
        return str(error)
    return "ok"

"""An audit from beginning to end: resumable, one line a series in `records.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triage.audit import sheet, tables
from triage.audit.examine import Eyes, Record, examine
from triage.audit.suspicions import Suspicion, suspicions
from triage.audit.walk import items
from triage.nets.bundle import BundleError, find_bundle, load_tensors, read_manifest
from triage.nets.localiser import localiser_of
from triage.nets.quality_bundle import find_quality, load_quality
from triage.settings import Settings

RECORDS, CSV, HTML = "records.jsonl", "suspicions.csv", "contact_sheet.html"
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Audit:
    """What an audit found. `reused`: items that an earlier call had looked at."""

    looked: int
    reused: int
    unreadable: int
    found: tuple[Suspicion, ...]
    csv: Path
    html: Path


def open_eyes(settings: Settings, *, phase: bool = True) -> Eyes:
    """The networks that look; `phase` loads the localiser of the bundle in use as well.

    Raises BundleError.
    """
    folder = find_quality()
    if folder is None:
        raise BundleError("models/quality", "none", "Install the program with its models.")
    localiser = None
    if phase:
        bundle = find_bundle(settings.model)
        manifest = read_manifest(bundle)
        localiser = localiser_of(manifest.networks["localiser"])
        localiser.load_state_dict(load_tensors(bundle, "localiser.safetensors", manifest))
        localiser.eval().requires_grad_(False)
    return Eyes(load_quality(folder), localiser, settings)


def audit(root: Path, out: Path, eyes: Eyes, progress: Progress | None = None) -> Audit:
    """Look at everything below `root`; writes records, CSV and contact sheet into `out`.

    What `out` already holds a record of, unchanged, is not looked at again.
    """
    out.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda stage, share: None)
    tell("listing", 0.0)
    inside = out.resolve()
    listed = [i for i in items(root) if inside not in i.path.resolve().parents]
    known = _known(out / RECORDS)
    records: list[Record] = []
    reused = 0
    with (out / RECORDS).open("a", encoding="utf-8") as stream:
        for k, item in enumerate(listed):
            tell(f"{item.patient}/{item.series}", k / len(listed))
            found = known.get(item.key)
            if found is None:
                found = examine(item, eyes)
                stream.write(json.dumps(found) + "\n")
                stream.flush()
            else:
                reused += 1
            # names go by the folder that is looked at now
            records += [{**r, "patient": item.patient, "series": item.series} for r in found]
    tell("comparing", 0.99)
    suspected = suspicions(records, tables.read(root))
    unreadable = sum("refused" in r for r in records)
    return Audit(
        len(records),
        reused,
        unreadable,
        tuple(suspected),
        sheet.write_csv(suspected, out / CSV),
        sheet.write_html(suspected, out / HTML, root, len(records), unreadable),
    )


def _known(path: Path) -> dict[str, list[Record]]:
    """Records of an earlier call, by item; a line cut off by a kill is left out."""
    known: dict[str, list[Record]] = {}
    if path.is_file():
        content = path.read_text(encoding="utf-8")
        if content and not content.endswith("\n"):
            path.write_text(content + "\n", encoding="utf-8")  # what follows starts a line
        for line in content.splitlines():
            try:
                found = json.loads(line)
                known[found[0]["key"]] = found
            except (ValueError, LookupError, TypeError):
                continue
    return known

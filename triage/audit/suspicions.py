"""What is suspected of an archive's labels: one rule a kind, all in `RULES` and `TABLE_RULES`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from triage.audit import hashes
from triage.audit.examine import Record
from triage.audit.tables import IMAGE_TARGETS, Tables, injured, number
from triage.inference.scope import ARTERIAL_ABOVE, DELAYED_BELOW, PLAIN_BELOW

KINDS = (
    "unreadable",
    "not_abdomen",
    "body_part",
    "orientation",
    "mirrored",
    "phase",
    "duplicate_patient",
    "duplicate_series",
    "contradiction",
    "incomplete_organ",
    "coverage",
    "quality",
)
OUTSIDE = 0.3  # from this probability on, a picture is suspected to lie outside the abdomen
LEAST_BITS = 0.02  # emptier hashes say nothing
# Words of a series description -> phases that it may mean.
PHASE_WORDS: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = (
    (("non con", "noncon", "plain", "native", "nativ", "without", "w/o"), frozenset({"plain"})),
    (("arter", "cta", "angio"), frozenset({"arterial"})),
    (("portal", "venous", "venoes", "venös"), frozenset({"portal_venous"})),
    (("delay", "late", "excret", "spät"), frozenset({"delayed"})),
)
# Code of a quality finding -> kind of suspicion.
FINDING_KINDS = {
    "NOT_ABDOMEN": "not_abdomen",
    "MISMATCH_BODY_PART": "body_part",
    "MISMATCH_ORIENTATION": "orientation",
    "MIRRORED_OR_SITUS_INVERSUS": "mirrored",
    "INCOMPLETE_COVERAGE": "coverage",
    "LOW_QUALITY": "quality",
    "UNLIKE_TRAINING": "quality",
}


@dataclass(frozen=True)
class Suspicion:
    """One suspected fault. `instance`: empty where it concerns the series or the patient."""

    kind: str
    confidence: float
    patient: str
    series: str
    instance: str
    detail: str
    path: str
    thumb: str = ""  # base64 PNG

    def row(self) -> dict[str, Any]:
        """For the CSV: all but the picture."""
        data = asdict(self)
        del data["thumb"]
        return data


def suspicions(records: Sequence[Record], tables: Tables) -> list[Suspicion]:
    """All suspicions, the surest of each kind first."""
    found = [s for r in records for rule in RULES for s in rule(r, tables)]
    found += [s for rule in TABLE_RULES for s in rule(records, tables)]
    return sorted(found, key=lambda s: (KINDS.index(s.kind), -s.confidence, s.patient, s.instance))


def _of(r: Record, kind: str, confidence: float, detail: str, **more: str) -> Suspicion:
    thumbs = r.get("thumbs") or [""]
    thumb = more.pop("thumb", thumbs[-1] if kind in ("orientation", "mirrored") else thumbs[0])
    instance = more.pop("instance", "")
    c = round(min(1.0, max(0.0, confidence)), 3)
    return Suspicion(kind, c, r["patient"], r["series"], instance, detail, r["path"], thumb)


def _refused(r: Record, _: Tables) -> Iterator[Suspicion]:
    if "refused" in r:
        yield _of(r, "unreadable", 1.0, f"{r['refused']}: {r['detail']}")


def _findings(r: Record, _: Tables) -> Iterator[Suspicion]:
    for finding in r.get("figures", {}).get("findings", ()):
        kind = FINDING_KINDS[finding["code"]]
        yield _of(r, kind, finding["confidence"], finding["detail"])


def _codes(r: Record) -> set[str]:
    return {f["code"] for f in r.get("figures", {}).get("findings", ())}


def _sides(r: Record, _: Tables) -> Iterator[Suspicion]:
    said = _codes(r)
    turned = {"MIRRORED_OR_SITUS_INVERSUS", "MISMATCH_ORIENTATION", "NOT_ABDOMEN"}
    if r.get("liver_right") is False and not said & turned:
        yield _of(r, "mirrored", 0.8, "the liver lies left of the spleen")


def _outside(r: Record, _: Tables) -> Iterator[Suspicion]:
    for shown in r.get("pictures", ()):
        if shown["outside"] >= OUTSIDE:
            inside = shown["region"] in ("abdomen", "pelvis")
            detail = "may lie outside the abdomen" if inside else f"shows the {shown['region']}"
            more = {"instance": shown["instance"], "thumb": shown["thumb"]}
            yield _of(r, "not_abdomen", shown["outside"], detail, **more)


def _phase(r: Record, tables: Tables) -> Iterator[Suspicion]:
    """Phase by the voxels against the words of the header and the table's aortic HU."""
    seen = r.get("phase")
    text = str(r.get("description", "")).lower()
    said = {p for words, phases in PHASE_WORDS if any(w in text for w in words) for p in phases}
    if seen in (None, "unknown"):
        return
    if said and seen not in said:
        sure = _words_confidence({*said, seen}, r.get("aorta_hu"))
        text = f"described as {' or '.join(sorted(said))}, looks {seen}"
        yield _of(r, "phase", sure, text.replace("_", " "))
    for row in tables.series.get(r["series"], ()):
        aorta = number(row, "aortic_hu")
        if aorta is not None and aorta > -500 and phase_of(aorta) != seen:
            sure = _phase_confidence(aorta, r.get("aorta_hu"))
            yield _of(
                r, "phase", sure, f"aortic_hu {aorta:g} means {phase_of(aorta)}, looks {seen}"
            )


def phase_of(aorta: float) -> str:
    """Phase by the attenuation of the aorta (see `inference.scope`)."""
    if aorta < PLAIN_BELOW:
        return "plain"
    if aorta > ARTERIAL_ABOVE:
        return "arterial"
    return "delayed" if aorta < DELAYED_BELOW else "portal_venous"


def _words_confidence(phases: set[str], aorta: float | None) -> float:
    """Portal venous and delayed pass into each other: between them only clear cases count."""
    if "plain" in phases:
        return 0.95
    between = phases <= {"portal_venous", "delayed"}
    return 0.4 if between and aorta is not None and 95 < aorta < 155 else 0.8


def _phase_confidence(said: float, seen: float | None) -> float:
    """Small differences of the aorta may change the name of a phase and mean nothing."""
    return 0.6 if seen is None else min(0.98, abs(said - seen) / 80)


def _incomplete(r: Record, tables: Tables) -> Iterator[Suspicion]:
    """Organs cut off by the end of the scan, where the table says that all are whole.

    Nothing where the localiser is lost: the patient lies another way, or it is no abdomen.
    """
    if _codes(r) & {"MIRRORED_OR_SITUS_INVERSUS", "MISMATCH_ORIENTATION", "NOT_ABDOMEN"}:
        return
    cut = r.get("incomplete") or []
    for row in tables.series.get(r["series"], ()):
        said = number(row, "incomplete_organ")
        if cut and said == 0:
            detail = f"{', '.join(cut)} cut off by the end of the scan, the table says complete"
            yield _of(r, "incomplete_organ", 0.85, detail)
        if not cut and said == 1 and "incomplete" in r:
            detail = "the table says incomplete, all organs look whole"
            yield _of(r, "incomplete_organ", 0.6, detail)
    if cut and r["series"] not in tables.series:
        yield _of(r, "incomplete_organ", 0.7, f"{', '.join(cut)} cut off by the end of the scan")


Rule = Callable[[Record, Tables], Iterator[Suspicion]]
RULES: tuple[Rule, ...] = (_refused, _findings, _sides, _outside, _phase, _incomplete)


# ---- rules over all records and tables


def _odd_aorta(records: Sequence[Record], tables: Tables) -> Iterator[Suspicion]:
    by_series = {r["series"]: r for r in records}
    for name, rows in tables.series.items():
        for row in rows:
            aorta = number(row, "aortic_hu")
            if aorta is not None and not -20 <= aorta <= 900 and name in by_series:
                yield _of(by_series[name], "contradiction", 1.0, f"aortic_hu {aorta:g} is no aorta")


def _contradictions(records: Sequence[Record], tables: Tables) -> Iterator[Suspicion]:
    """Image-level labels against patient-level ones, and the patient's row against itself."""
    by_patient = {r["patient"]: r for r in records}
    thumb = _pictures_of(records)
    for patient, rows in tables.patients.items():
        record = by_patient.get(patient)
        if record is None:
            continue
        for row in rows:
            yield from _row_faults(record, row)
        shown = {
            IMAGE_TARGETS.get(row.get("injury_name", "")): row
            for row in tables.images.get(patient, ())
        }
        for target in IMAGE_TARGETS.values():
            said = {injured(row, target) for row in rows}
            if target in shown and said == {False}:
                at = shown[target].get("instance_number", "")
                detail = f"image {at} is labelled {target}, the patient healthy"
                picture = thumb.get((patient, at), "")
                yield _of(record, "contradiction", 1.0, detail, instance=at, thumb=picture)
            if tables.images and target not in shown and said == {True}:
                detail = f"the patient is labelled {target}, no image is"
                yield _of(record, "contradiction", 0.7, detail)
    for patient, rows in tables.images.items():
        if patient in by_patient and patient not in tables.patients:
            detail = f"{len(rows)} images are labelled, the patient is not in the table"
            yield _of(by_patient[patient], "contradiction", 0.9, detail)


def _pictures_of(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    return {
        (r["patient"], p["instance"]): p["thumb"] for r in records for p in r.get("pictures", ())
    }


def _row_faults(record: Record, row: dict[str, str]) -> Iterator[Suspicion]:
    """One-hot groups that do not sum to 1, and any_injury that does not follow."""
    groups: dict[str, float] = defaultdict(float)
    hurt = False
    for name in row:
        organ, _, grade = name.rpartition("_")
        value = number(row, name)
        if grade in ("healthy", "injury", "low", "high") and value is not None:
            groups[organ] += value
            hurt |= grade != "healthy" and value == 1
    groups.pop("any", None)
    wrong = sorted(organ for organ, total in groups.items() if abs(total - 1) > 1e-6)
    any_injury = number(row, "any_injury")
    hurt = any(
        number(row, f"{organ}_{grade}") == 1
        for organ in groups
        for grade in ("injury", "low", "high")
    )
    if wrong:
        yield _of(record, "contradiction", 1.0, f"the grades of {', '.join(wrong)} do not sum to 1")
    if any_injury is not None and bool(any_injury) != hurt:
        yield _of(
            record, "contradiction", 1.0, f"any_injury is {any_injury:g}, the organs say else"
        )


def _duplicates(records: Sequence[Record], _: Tables) -> Iterator[Suspicion]:
    """Volumes that look alike: of two patients, or twice in one."""
    volumes = [r for r in records if r.get("hash")]
    yield from _pairs(volumes, [r["hash"] for r in volumes], hashes.SAME_VOLUME, None)
    shown = [(r, p) for r in records for p in r.get("pictures", ())]
    usable = [(r, p) for r, p in shown if hashes.information(hashes.parsed(p["hash"])) > LEAST_BITS]
    prints = [p["hash"] for _, p in usable]
    yield from _pairs([r for r, _ in usable], prints, hashes.SAME_PICTURE, [p for _, p in usable])


def _pairs(
    found: Sequence[Record],
    prints: Sequence[str],
    limit: float,
    pictures: Sequence[dict[str, Any]] | None,
) -> Iterator[Suspicion]:
    if len(prints) < 2:
        return
    table = np.stack([hashes.parsed(h) for h in prints])
    best: dict[tuple[str, ...], tuple[float, int, int, int]] = {}
    for i, j, part in hashes.alike(table, limit):
        a, b = found[i], found[j]
        same_patient = a["patient"] == b["patient"]
        if same_patient and (pictures is not None or a["key"] == b["key"]):
            continue  # neighbouring slices of one patient are alike
        pair = (a["key"], b["key"])
        old = best.get(pair, (2.0, i, j, 0))
        best[pair] = (*min(old[:3], (part, i, j)), old[3] + 1)
    for part, i, j, count in best.values():
        a, b = found[i], found[j]
        kind = "duplicate_series" if a["patient"] == b["patient"] else "duplicate_patient"
        sure = 1 - part / limit / 2
        detail = f"looks like series {b['series']} of patient {b['patient']}"
        more: dict[str, str] = {}
        if pictures is not None:
            detail += f", image {pictures[j]['instance']} ({count} pairs)"
            more = {"instance": pictures[i]["instance"], "thumb": pictures[i]["thumb"]}
            sure = min(sure, 0.6 if count == 1 else 1.0)  # one picture may be alike by chance
        yield _of(a, kind, sure, detail, **more)


TableRule = Callable[[Sequence[Record], Tables], Iterator[Suspicion]]
TABLE_RULES: tuple[TableRule, ...] = (_odd_aorta, _contradictions, _duplicates)

"""What is measured on a finished bundle, taken into it: margins of engines, where maps point.

    python -m triage.training.amend BUNDLE --version V [--agreement FILE] [--margins-of BUNDLE]
        [--saliency FILE] [--real-ct FILE ...] [--ablations FILE]

`--agreement`: agreement.json of `scripts/engine-agreement --out`; lowers rule-out by each target's
`engine_margin`, and at least by those of `--margins-of`: a bundle of nearly the same networks that
more patients measured. `--saliency`: saliency.json of `scripts/saliency-report`. `--real-ct`: files
of `scripts/real-ct --json`. `--ablations`: ablations.json of `triage.training.ablation`. Metrics,
cutoffs and card are written anew, the weights stay byte by byte. All may be measured on a bundle of
the same weights under another version.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from triage.decision.table import CutoffTable
from triage.nets.bundle import (
    CARD,
    CUTOFFS,
    BundleError,
    find_bundle,
    read_manifest,
    reference,
    verify,
)
from triage.nets.bundle_writer import write_bundle
from triage.training.assemble import to_json
from triage.training.card import model_card

METRICS = "evaluation/metrics.json"
Json = Mapping[str, Any]


def with_margins(
    table: CutoffTable, agreement: Json, least: CutoffTable | None = None
) -> CutoffTable:
    """Cutoffs with the margins that `scripts/engine-agreement` measured, none below those of
    `least`; others stay."""
    found = {name: float(row["engine_margin"]) for name, row in agreement["targets"].items()}
    for target, entry in least.targets.items() if least else ():
        if target.value in found:
            found[target.value] = max(found[target.value], entry.engine_margin)
    targets = {
        t: replace(entry, engine_margin=found.get(t.value, entry.engine_margin))
        for t, entry in table.targets.items()
    }
    return replace(table, targets=targets)


def amend(
    folder: Path,
    version: str,
    *,
    agreement: Json | None = None,
    least: Path | None = None,
    beside: Json | None = None,
) -> Path:
    """The bundle with these measurements under another version. `least`: a bundle whose margins
    are the smallest allowed. `beside`: what else comes into its metrics, by name. BundleError if it
    is damaged or has no metrics."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    if METRICS not in manifest.files:
        raise BundleError(f"a bundle with {METRICS}", "one without", "Measure it first.")
    kept = {p: (folder / p).read_bytes() for p in manifest.files if p not in (CUTOFFS, CARD)}
    metrics: dict[str, Any] = json.loads(kept[METRICS])
    table = CutoffTable.from_bundle(folder)
    if agreement is not None:
        if least is not None:
            said = f"{read_manifest(least).version} ({reference(least).sha256[:12]})"
            note = f"{agreement.get('note', '')} Margins are at least those of bundle {said}."
            agreement = {**agreement, "note": note.strip()}
        table = with_margins(table, agreement, CutoffTable.from_bundle(least) if least else None)
        metrics |= {"engines": agreement, "cutoffs": table.to_dict()}
    metrics |= beside or {}
    kept[METRICS] = to_json(metrics)
    provenance: dict[str, Any] = dict(manifest.provenance)
    return write_bundle(
        folder,
        name=manifest.name,
        version=version,
        calibrated_on=manifest.calibrated_on,
        prevalence=manifest.prevalence,
        networks=manifest.networks,
        preprocessing=manifest.preprocessing,
        tensors={},
        cutoffs=table.to_dict(),
        provenance=provenance,
        card=model_card(manifest.name, version, metrics, provenance),
        extra=kept,
        overwrite=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", help="a name below models/ or a folder")
    parser.add_argument("--version", required=True)
    parser.add_argument("--agreement", type=Path, help="agreement.json")
    parser.add_argument("--margins-of", help="bundle whose margins are the smallest allowed")
    parser.add_argument("--saliency", type=Path, help="saliency.json")
    parser.add_argument("--ablations", type=Path, help="ablations.json")
    parser.add_argument("--real-ct", type=Path, nargs="+", help="files of scripts/real-ct --json")
    a = parser.parse_args(arguments)
    folder = find_bundle(a.bundle)
    beside: dict[str, Any] = {
        name: json.loads(path.read_text())
        for name, path in (("saliency", a.saliency), ("ablations", a.ablations))
        if path
    }
    if a.real_ct:
        beside["real_ct"] = [row for path in a.real_ct for row in json.loads(path.read_text())]
    agreement = json.loads(a.agreement.read_text()) if a.agreement else None
    least = find_bundle(a.margins_of) if a.margins_of else None
    amend(folder, a.version, agreement=agreement, least=least, beside=beside)
    print(f"wrote {reference(folder)}")


if __name__ == "__main__":
    main()

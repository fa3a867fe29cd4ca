"""What the patients looked like that a bundle was calibrated on: its reference against drift.

`python -m triage.training.inputs BUNDLE REPORT...` reads the reports (report.json, or folders with
one each below them) that `triage run --model BUNDLE` wrote of those patients, and puts
`evaluation/inputs.json` into the bundle. Its weights and cutoffs stay; its identity (sha256 of
the manifest) becomes another one. A service watches against it: `triage.service.drift`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from triage.files import write_atomic
from triage.nets.bundle import MANIFEST, find_bundle, manifest_sha256, parse_manifest, read_manifest
from triage.results.figures import INPUTS, Many, figures_of
from triage.results.report import REPORT_NAME
from triage.types import Status

FEWEST = 100  # studies: with fewer, the tails are nobody's


def add_inputs(folder: Path, many: Many) -> None:
    """Put the reference into a bundle, in place of an older one: file first, manifest last."""
    manifest = read_manifest(folder).model_dump(mode="json")
    content = many.to_bytes()
    manifest["files"][INPUTS] = hashlib.sha256(content).hexdigest()
    text = (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()
    parse_manifest(text, folder)  # what could not be read is not written
    (folder / INPUTS).parent.mkdir(exist_ok=True)
    write_atomic(folder / INPUTS, content)
    write_atomic(folder / MANIFEST, text)


def reports(places: Iterable[Path]) -> Iterator[Path]:
    """The report.json files in these files and folders."""
    for place in places:
        yield from sorted(place.rglob(REPORT_NAME)) if place.is_dir() else [place]


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    read = [json.loads(path.read_bytes()) for path in reports(Path(p) for p in given[1:])]
    analysed = [r for r in read if r.get("status") == Status.ANALYSED]
    if len(analysed) < FEWEST:
        found = f"{len(analysed)} of {len(read)}"
        print(f"error: expected {FEWEST} analysed studies or more, got {found}", file=sys.stderr)
        return 1
    folder = find_bundle(given[0])
    add_inputs(folder, Many.of(figures_of(r) for r in read))
    print(f"{len(read)} studies in {folder / INPUTS}; the bundle is now {manifest_sha256(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

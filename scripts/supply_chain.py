"""Judges what `scripts/supply-chain` collected: licences, known weaknesses, bill of materials.

    python supply_chain.py licences LICENCES.json TABLE.md  1: a licence is not on the list
    python supply_chain.py audit AUDIT.json TEXT.txt        1: a weakness; 3: not all asked about
    python supply_chain.py bill SBOM.json                   1: no CycloneDX, or it lacks packages

Standard library alone. What could not be asked is never called clean.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

PROJECT = "trauma-ct-triage"
UNKNOWN = 3

# Names of licences as SPDX and as classifiers write them. LGPL: psycopg, a library that we call and
# do not change.
ALLOWED = frozenset(
    name.strip()
    for line in """
        MIT|MIT License|MIT-0|MIT-CMU|0BSD|BSD License|BSD-2-Clause|BSD-3-Clause
        Apache-2.0|Apache Software License|Apache License 2.0|Apache-2.0 WITH LLVM-exception
        PSF-2.0|Python Software Foundation License|ISC|ISC License (ISCL)|HPND|Unlicense|Zlib
        BSL-1.0|CC0-1.0|CNRI-Python|MPL-2.0|Mozilla Public License 2.0 (MPL 2.0)|LGPL-3.0-only
    """.strip().splitlines()
    for name in line.split("|")
)


def licence_fits(expression: str) -> bool:
    """Whether each part that must hold is on the list, or an alternative to it is.

    `expression`: SPDX (`A AND (B OR C)`), or classifiers with `;` between them.
    """
    parts = re.split(r"\s+AND\s+|;", expression.replace("DFSG approved;", ""))
    return all(any(_listed(one) for one in re.split(r"\s+OR\s+", part)) for part in parts)


def _listed(name: str) -> bool:
    return name.strip() in ALLOWED or name.strip(" ()") in ALLOWED


def at_run_time(project: str = PROJECT, ask: Callable[[str], Any] = requires) -> frozenset[str]:
    """Normalised names of all that the program itself needs, however deep, extras included."""
    found: set[tuple[str, str]] = set()
    waiting = [(project, "")]
    while waiting:
        name, extra = normalised(waiting[-1][0]), waiting.pop()[1]
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            needed = ask(name) or []
        except PackageNotFoundError:
            continue
        for text in needed:
            only = re.search(r"""extra == ["']([^"']+)""", text)
            if (only[1] if only else "") == extra:
                waiting += _parts(text)
    return frozenset(name for name, _ in found)


def _parts(requirement: str) -> list[tuple[str, str]]:
    """`psycopg[binary]>=3; ...` as [(psycopg, ""), (psycopg, binary)] (PEP 508)."""
    name = re.split(r"[\s\[(<>=!~;@]", requirement.strip())[0]
    extras = re.match(r"[^\[;]+\[([^\]]*)\]", requirement)
    named = [one.strip() for one in extras[1].split(",")] if extras else []
    return [(name, ""), *((name, one) for one in named)]


def normalised(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences(rows: Iterable[Mapping[str, Any]], needed: frozenset[str]) -> tuple[str, list[str]]:
    """A table in Markdown, and the packages whose licence is not on the list."""
    lines = ["| package | version | licence | needed by |", "|---|---|---|---|"]
    bad = []
    for row in sorted(rows, key=lambda r: str(r["Name"]).lower()):
        name = str(row["Name"])
        if normalised(name) == PROJECT:
            continue
        said = str(row["License"])
        who = "the program" if normalised(name) in needed else "tests"
        lines.append(f"| {name} | {row['Version']} | {said} | {who} |")
        if not licence_fits(said):
            bad.append(f"{name} {row['Version']}: {said}")
    return "\n".join(lines) + "\n", bad


def audit(data: Mapping[str, Any]) -> tuple[int, str]:
    """Exit code and text of what pip-audit said (`--format json`)."""
    packages = [p for p in data.get("dependencies", []) if normalised(p["name"]) != PROJECT]
    asked = [p for p in packages if "skip_reason" not in p]
    weak = [
        f"{p['name']} {p['version']}: {v['id']} (mended in {', '.join(v['fix_versions']) or '?'})"
        for p in asked
        for v in p.get("vulns", [])
    ]
    skipped = [f"{p['name']}: {p['skip_reason']}" for p in packages if "skip_reason" in p]
    head = f"{len(asked)} of {len(packages)} packages asked about, {len(weak)} weaknesses known"
    lines = [head, *weak, *(f"not asked about: {text}" for text in skipped)]
    code = 1 if weak else UNKNOWN if skipped or not asked else 0
    return code, "\n".join(lines) + "\n"


def bill(data: Mapping[str, Any], needed: frozenset[str]) -> list[str]:
    """What is wrong with a bill of materials."""
    wrong = []
    if data.get("bomFormat") != "CycloneDX" or not data.get("specVersion"):
        wrong.append("it is no CycloneDX document")
    root = (data.get("metadata") or {}).get("component") or {}
    if normalised(str(root.get("name"))) != PROJECT:
        wrong.append(f"its main component is {root.get('name')!r}")
    listed = {normalised(str(c.get("name"))) for c in data.get("components", [])}
    here = {name for name in needed if name != PROJECT and _installed(name)}
    if missing := sorted(here - listed):
        wrong.append(f"it lacks {', '.join(missing)}")
    return wrong


def _installed(name: str) -> bool:
    try:
        requires(name)
    except PackageNotFoundError:
        return False
    return True


def main(arguments: list[str]) -> int:
    what, source, *out = arguments
    try:
        data = json.loads(Path(source).read_text())
    except (OSError, ValueError) as error:
        data = None
        print(f"{source}: {error}", file=sys.stderr)
    if what == "audit":
        code, text = audit(data) if data else (UNKNOWN, "pip-audit could not be run\n")
        Path(out[0]).write_text(text)
        print(text.splitlines()[0])
        return code
    if data is None:
        return 1
    if what == "licences":
        text, bad = licences(data, at_run_time())
        Path(out[0]).write_text(text)
    else:
        bad = bill(data, at_run_time())
    for line in bad:
        print(line, file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How the supply chain is judged, and that no finding is silenced without a written reason."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", ROOT / "scripts" / "supply_chain.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT; GNU General Public License v3 (GPLv3)", False),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("ISC License (ISCL)", True),
        ("GPL-3.0-only", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_a_licence_fits_only_if_all_of_it_does(judge: ModuleType, said: str, fits: bool) -> None:
    assert judge.licence_fits(said) is fits


def test_what_could_not_be_asked_is_not_clean(judge: ModuleType) -> None:
    fine = {"name": "a", "version": "1", "vulns": []}
    weak = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    unknown = {"name": "c", "skip_reason": "not found"}
    ours = {"name": "trauma_ct_triage", "skip_reason": "not on PyPI"}
    assert judge.audit({"dependencies": [fine, ours]})[0] == 0
    assert judge.audit({"dependencies": [fine, unknown]})[0] == judge.UNKNOWN
    assert judge.audit({"dependencies": [ours]})[0] == judge.audit({})[0] == judge.UNKNOWN
    code, text = judge.audit({"dependencies": [fine, weak, unknown]})
    assert code == 1 and "1 weaknesses" in text and "PYSEC-1" in text and "c: not found" in text


def test_what_the_program_needs_is_told_from_what_tests_need(judge: ModuleType) -> None:
    tree = {
        "trauma-ct-triage": ["numpy>=1", 'pytest>=8; extra == "test"', "Deep_One[x]>=2"],
        "deep-one": ["other", 'fast; extra == "x"', "slow; extra == 'y'"],
    }
    assert judge.at_run_time(ask=tree.get) == {
        *("trauma-ct-triage", "numpy", "deep-one", "other", "fast")
    }


def test_a_bill_that_lacks_packages_is_refused(judge: ModuleType) -> None:
    good = {
        **{"bomFormat": "CycloneDX", "specVersion": "1.6"},
        **{"metadata": {"component": {"name": "trauma-ct-triage"}}},
        **{"components": [{"name": "numpy"}, {"name": "pydicom"}]},
    }
    assert judge.bill(good, frozenset({"numpy", "pydicom", "not-installed"})) == []
    assert judge.bill(good, frozenset({"scipy"})) == ["it lacks scipy"]
    assert len(judge.bill({}, frozenset())) == 2


SILENCED = re.compile(r"#\s*(?:noqa:\s*S\d+|nosec)\b(.*)$")
PATHS = sorted((ROOT / "triage").rglob("*.py"))


def test_every_silenced_security_finding_has_a_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in PATHS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (found := SILENCED.search(line))
        and not re.search(r"[a-z]{2,}", re.sub(r"#?\s*nosec(\s+B\d+)*|[SB]\d+|,", "", found[1]))
    ]
    assert bare == []


def test_constraints_pin_one_version_of_each_package() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line) for line in pinned)
    names = [line.split("==")[0].lower() for line in pinned]
    assert names == sorted(set(names), key=names.index) and len(names) == len(set(names))


def test_the_script_can_be_run() -> None:
    script = ROOT / "scripts" / "supply-chain"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)

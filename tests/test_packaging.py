"""The wheel holds every package, every data file and the bundles; the pins fit pyproject.toml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M
    )
}
# The parts that the project is built on; `triage info` names them.
CARD = ("monai", "torch", "nibabel", "SimpleITK", "pydicom", "fastapi", "captum")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("triage", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", folder, source]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, timeout=240)
    (path,) = folder.glob("*.whl")
    return path


def files_below(folder: str) -> set[str]:
    found = (ROOT / folder).rglob("*")
    return {
        path.relative_to(ROOT / folder).as_posix()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_the_wheel_holds_all_code_data_and_bundles(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"triage/{name}" for name in files_below("triage")} <= names
    assert {f"triage_models/{name}" for name in files_below("models")} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"triage", "triage_models"}


def test_the_installed_wheel_finds_its_bundle(wheel: Path, tmp_path: Path) -> None:
    if not (ROOT / "models" / "reference" / "bundle.json").is_file():
        pytest.skip("there is no bundle in models/reference")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from triage.nets.bundle import find_bundle, verify\n"
        "folder = find_bundle('reference'); verify(folder); print(folder)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == str(site / "triage_models" / "reference")


@pytest.mark.parametrize("line", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
def test_each_dependency_is_pinned_within_its_range(line: str) -> None:
    requirement = Requirement(line)
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in constraints.txt"
    assert pin in requirement.specifier
    assert pin.local is None, "a local version such as +cpu is not on the registry"


def test_torch_is_the_first_pin() -> None:
    assert next(iter(PINS)) == "torch"


@pytest.mark.parametrize("name", CARD)
def test_the_project_is_built_on_it(name: str) -> None:
    assert any(Requirement(line).name == name for line in PROJECT["dependencies"])
    uses = re.compile(rf"^\s*(import|from) {name}\b", re.M)
    assert any(uses.search(path.read_text()) for path in (ROOT / "triage").rglob("*.py")), (
        f"{name} is required and never imported"
    )

"""Bundles: a folder with weights, manifest, cutoffs and model card, each file under its sha256.

    bundle.json       the manifest: architecture, preprocessing, prevalence, sha256 of each file
    *.safetensors     weights; no other format of weights is read, and never a pickle
    cutoffs.json      calibration, fusion and cutoffs (read by `decision.table`)
    MODEL_CARD.md     what it learned from and what was measured
    evaluation/       metrics and plots

The manifest is our own schema and holds data alone: nothing in it names code to run. torch is
imported only where tensors are read, so that light commands stay light. This module finds and
reads bundles; `bundle_writer` writes them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from triage.types import BundleRef, Target

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = "1"
MANIFEST, CUTOFFS, CARD = "bundle.json", "cutoffs.json", "MODEL_CARD.md"
SUFFIXES = frozenset({".safetensors", ".json", ".md", ".csv", ".png", ".html", ".txt"})
MAX_MANIFEST_BYTES = 1 << 20
INSTALLED = "triage_models"  # package that carries the bundles inside the wheel
REPOSITORY_MODELS = Path(__file__).resolve().parents[2] / "models"

_FETCH_AGAIN = "The file was changed, cut short or damaged: fetch or write the bundle again."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")

Probability = Annotated[float, Field(gt=0, lt=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=rf"^{_NAME.pattern}$")]


class BundleError(Exception):
    """A bundle cannot be used: what was expected, what came, and what to do."""

    def __init__(self, expected: str, came: str, fix: str) -> None:
        self.expected, self.came, self.fix = expected, came, fix
        super().__init__(f"Expected {expected}, got {came}. {fix}")


class Manifest(BaseModel):
    """bundle.json. `networks`: each network's architecture by name, and as `file` its weights;
    `files`: each file's path (relative, below the bundle's folder) and its sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal["1"]
    name: Name
    version: Name
    calibrated_on: Literal["simulated", "real"]
    prevalence: dict[Target, Probability] = Field(min_length=1)
    networks: dict[str, dict[str, JsonValue]] = Field(min_length=1)
    preprocessing: dict[str, JsonValue]
    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, Sha256]

    @field_validator("files")
    @classmethod
    def _plain_paths(cls, files: dict[str, str]) -> dict[str, str]:
        for path in files:
            if not is_plain_path(path):
                raise ValueError(f"{path!r} is no plain relative path to one of {sorted(SUFFIXES)}")
        missing = {CUTOFFS, CARD} - files.keys()
        if missing or MANIFEST in files:
            raise ValueError(f"must list {CUTOFFS} and {CARD} and not itself, got {sorted(files)}")
        return files

    @model_validator(mode="after")
    def _weights_listed(self) -> Manifest:
        for name, network in self.networks.items():
            if "file" in network and network["file"] not in self.files:
                raise ValueError(f"file {network['file']!r} of network {name!r} is not in files")
        return self


def is_plain_path(path: str) -> bool:
    """True for a relative POSIX path of plain names with a known suffix: no `..`, no root."""
    return PurePosixPath(path).suffix in SUFFIXES and all(
        _SEGMENT.fullmatch(segment) for segment in path.split("/")
    )


def find_bundle(name_or_path: str | Path) -> Path:
    """Folder of a bundle: a name below the repository's or the wheel's models, or a folder.

    A name that ships with the program wins over a folder of that name in the working directory.
    Raises BundleError with the places that were searched.
    """
    given = str(name_or_path)
    places = [Path(given).expanduser()]
    if isinstance(name_or_path, str) and _NAME.fullmatch(given):
        places = [*(folder / given for folder in _model_folders()), *places]
    for place in places:
        if (place / MANIFEST).is_file():
            return place.resolve()
    raise BundleError(
        f"a bundle (a folder with {MANIFEST})",
        f"{given!r}, not found as {', '.join(str(place) for place in places)}",
        "Give the folder of a bundle or the name of one that is installed (TRIAGE_MODEL, --model).",
    )


def _model_folders() -> list[Path]:
    folders = [REPOSITORY_MODELS]
    spec = importlib.util.find_spec(INSTALLED)
    if spec is not None and spec.submodule_search_locations:
        folders += [Path(place) for place in spec.submodule_search_locations]
    return folders


def read_manifest(folder: Path) -> Manifest:
    """Read and validate bundle.json; the files it names are not touched (see `verify`)."""
    return parse_manifest(_manifest_bytes(folder), folder)


def _manifest_bytes(folder: Path) -> bytes:
    content = _read(Path(folder), MANIFEST, limit=MAX_MANIFEST_BYTES)
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{MANIFEST} of at most {MAX_MANIFEST_BYTES} bytes", "a larger file", _FETCH_AGAIN
        )
    return content


def parse_manifest(content: bytes, folder: Path) -> Manifest:
    """Validate the content of bundle.json; `folder` is named in the BundleError if it is bad."""
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"schema_version {SCHEMA_VERSION!r} in {folder / MANIFEST}",
                repr(version)[:100],
                "Use a bundle that fits this version of the program, or train it again.",
            )
        return Manifest.model_validate(data)
    except (ValueError, RecursionError) as error:  # JSON, UTF-8 and pydantic errors
        raise BundleError(
            f"a valid {folder / MANIFEST}", one_line(error), "Write the bundle again."
        ) from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def manifest_sha256(folder: Path) -> str:
    """The bundle's identity: sha256 of bundle.json, which holds the sha256 of every other file."""
    return hashlib.sha256(_manifest_bytes(folder)).hexdigest()


def reference(folder: Path) -> BundleRef:
    """Name, version, identity and calibration of a bundle, as reports carry them."""
    content = _manifest_bytes(folder)
    manifest = parse_manifest(content, Path(folder))
    digest = hashlib.sha256(content).hexdigest()
    return BundleRef(manifest.name, manifest.version, digest, manifest.calibrated_on)


def verify(folder: Path, manifest: Manifest | None = None) -> Manifest:
    """Check the sha256 of every file in the manifest, cutoffs.json included; BundleError if not."""
    manifest = manifest or read_manifest(folder)
    for file in manifest.files:
        read_bytes(folder, file, manifest)
    return manifest


def read_bytes(folder: Path, file: str, manifest: Manifest | None = None) -> bytes:
    """Content of a file that the manifest lists, after its sha256 was checked."""
    manifest = manifest or read_manifest(folder)
    wanted = manifest.files.get(file)
    if wanted is None:
        raise BundleError(
            f"{file!r} in {MANIFEST}", f"only {sorted(manifest.files)}", "Write the bundle again."
        )
    content = _read(Path(folder), file)
    came = hashlib.sha256(content).hexdigest()
    if came != wanted:
        raise BundleError(f"sha256 {wanted} of {Path(folder) / file}", came, _FETCH_AGAIN)
    return content


def load_tensors(folder: Path, file: str, manifest: Manifest | None = None) -> dict[str, Tensor]:
    """Tensors of a .safetensors file of the bundle, on the CPU, floating point ones as float32.

    The bytes are hashed and parsed from memory, so that what was checked is what is used.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if PurePosixPath(file).suffix != ".safetensors":
        raise BundleError("a .safetensors file", repr(file), "Convert the weights to safetensors.")
    content = read_bytes(folder, file, manifest)
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"safetensors in {file}", one_line(error), _FETCH_AGAIN) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = require_finite(tensor.float(), name, file)
    return tensors


def require_finite(tensor: Tensor, name: str, file: str) -> Tensor:
    """The tensor itself, or BundleError.

    A weight that is not finite would turn every score into NaN; fp16 overflows above 65504.
    """
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise BundleError(
            f"finite weights in {file}", f"NaN or infinity in {name}", "Train or store it again."
        )
    return tensor


def one_line(error: BaseException) -> str:
    """An error's message on one line, cut to 300 characters."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:300]
    return " ".join(str(error).split())[:300]


def refuse_links(folder: Path, file: str) -> None:
    """BundleError if any part of the path below the bundle's folder is a link."""
    place = folder
    for segment in PurePosixPath(file).parts:
        place /= segment
        if place.is_symlink():
            raise BundleError(
                f"{file} inside the bundle's folder", f"a link at {place}", "Copy the file itself."
            )


def _read(folder: Path, file: str, limit: int = -1) -> bytes:
    refuse_links(folder, file)
    path = folder / file
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"a file at {path}", "something else", "Write the bundle again.")
        with path.open("rb") as stream:
            return stream.read(limit + 1 if limit >= 0 else -1)
    except OSError as error:
        raise BundleError(
            f"a readable file {path}", error.strerror or str(error), "Fetch the bundle again."
        ) from error

"""The entrances for files: `triage run` with DICOM, zip and research files, the intake's header
reader, and bundle loading. Those of the service are in `dimse_entrances` and `web_entrances`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
from pathlib import Path

import torch

from tests.fuzz import seeds
from tests.fuzz.judge import TRACEBACK, Control, Find, judged
from tests.fuzz.mutate import damaged, damaged_dicom
from tests.fuzz.seeds import Seed, Seeds
from triage.reasons import REASONS, NotAnalysed
from triage.settings import Settings

Dice = random.Random


class Entrance:
    """One way in. `send` damages one input, sends it and says what came of it; raises `Find`."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = Seeds(folder / "seeds")
        self.settings = Settings(home=folder / "home", threads=1)
        self.last: bytes = b""  # what was sent, for the record of a find

    def open(self) -> None:
        """Get ready."""

    def close(self) -> None:
        """End what was started."""

    def send(self, dice: Dice) -> str:
        raise NotImplementedError

    def check(self) -> None:
        """After some inputs: does it still work? Raises Find."""


PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # (7FE0,0010), little and big endian


def one_damaged(dice: Dice, seed: Seed) -> tuple[list[bytes], int, bool]:
    """The slices with one of them damaged; which, and whether its pixels are damaged, too."""
    slices, which = list(seed.slices), dice.randrange(len(seed.slices))
    good = slices[which]
    slices[which] = damaged_dicom(dice, good, seed.slices)
    at = max(
        good.rfind(tag) for tag in PIXEL_DATA
    )  # none where the data set is deflated: nothing protects that
    return slices, which, at < 0 or good[at:] not in slices[which]


class RunDicom(Entrance):
    """`triage run FOLDER`: a series with one damaged slice; now and then that slice alone."""

    name = "triage run: DICOM"

    def open(self) -> None:
        self.controls: dict[str, Control] = {}
        self.work = self.folder / "work"

    def send(self, dice: Dice) -> str:
        syntax = dice.choice(seeds.SYNTAXES)
        seed = self.seeds.series(syntax)
        slices, which, touched = one_damaged(dice, seed)
        self.last = slices[which]
        alone = dice.random() < 0.2
        self._write([slices[which]] if alone else slices)
        control = self._control(syntax)
        said = judged(
            self.work, self.settings, control, touched=which if touched else None, incomplete=alone
        )
        if alone and said in ("same", "fewer, said"):
            raise Find("verdict", "a single slice went through")
        return said

    def _control(self, syntax: str) -> Control:
        if syntax not in self.controls:
            self.controls[syntax] = Control.of(self.seeds.folder / syntax, self.settings)
        return self.controls[syntax]

    def _write(self, slices: list[bytes]) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        for number, data in enumerate(slices):
            (self.work / f"{number:03d}.dcm").write_bytes(data)


class RunZip(RunDicom):
    """`triage run ZIP`."""

    name = "triage run: zip"

    def send(self, dice: Dice) -> str:
        syntax = dice.choice(("explicit", "rle"))
        self.last = damaged(
            dice, seeds.zipped(self.seeds.series(syntax).slices, dice.random() < 0.7)
        )
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / "study.zip"
        path.write_bytes(self.last)
        return judged(path, self.settings, self._control(syntax))


class RunFile(Entrance):
    """`triage run` with NIfTI, NRRD or MHA; a sixth of what was refused by the command itself."""

    name = "triage run: NIfTI, NRRD, MHA"

    def open(self) -> None:
        for name in seeds.FILES:
            self.seeds.folder.mkdir(parents=True, exist_ok=True)
            self.seeds.file(name)
        self.controls = {
            name: Control.of(self.seeds.folder / name, self.settings) for name in seeds.FILES
        }
        self.command = os.environ.get("TRIAGE_FUZZ_COMMAND") == "1"

    def send(self, dice: Dice) -> str:
        name = dice.choice(seeds.FILES)
        self.last = damaged(dice, self.seeds.file(name))
        path = self.folder / name
        path.write_bytes(self.last)
        head = (
            400 if name.endswith("nrrd") else 0
        )  # its header says what it likes, and is not packed
        good = self.seeds.file(name)
        head = 400 if name.endswith("nrrd") else 0  # its header is not packed: it may say anything
        packed = name.endswith(("gz", "nrrd")) and self.last[:head] == good[:head]
        cut = len(self.last) < len(good) and good.startswith(self.last)
        control = self.controls[name]
        said = judged(path, self.settings, control, exact=packed or cut)
        if said in REASONS and self.command and dice.random() < 1 / 6:
            by_command(path, self.folder / "out")
        return said


def by_command(source: Path, out: Path) -> None:
    """`triage run` refuses `source`: exit code 3, one line, a report without any verdict."""
    from triage.cli.main import call

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = call(["run", str(source), "--out", str(out)])
    said = errors.getvalue()
    if TRACEBACK.search(said):
        raise Find("traceback", said[:300])
    report = json.loads((out / "report.json").read_text())
    if report["targets"] or report["status"] != "not_analysed":
        raise Find("verdict", f"{report['status']}: {report['targets']}")
    lines = [line for line in said.splitlines() if line.split(":")[0] in REASONS]
    if code != 3 or len(lines) != 1:
        raise Find("crash", f"exit code {code}: {said[:200]}")


class Header(Entrance):
    """The intake's own header reader: the one parser that runs in the service's process."""

    name = "header reader of the service"

    def send(self, dice: Dice) -> str:
        from triage.service.intake.header import read_header

        seed = self.seeds.series(dice.choice(seeds.SYNTAXES))
        self.last = damaged_dicom(dice, dice.choice(seed.slices), seed.slices)
        try:
            header = read_header(self.last)
        except NotAnalysed as refusal:
            return refusal.code
        except Exception as error:
            raise Find("crash", f"{type(error).__name__}: {error}"[:300]) from error
        told = (header.patient_name, header.sop_instance_uid, header.series_description)
        if any(c < " " for text in told for c in text):
            raise Find("crash", f"control characters in {told!r}")
        return "read"


class BundleLoading(Entrance):
    """A bundle with one damaged file; half of the time its manifest lists the new sha256."""

    name = "bundle loading"
    WEIGHTS = "slices/liver.safetensors"

    def open(self) -> None:
        from triage.decision.table import CutoffTable, neutral
        from triage.nets import bundle_writer
        from triage.types import TARGETS

        table = CutoffTable("simulated", {target: neutral(0.1) for target in TARGETS})
        self.good = bundle_writer.write_bundle(
            self.folder / "good",
            name="reference",
            version="1.0.0",
            calibrated_on="simulated",
            prevalence=dict.fromkeys(TARGETS, 0.1),
            networks={"liver": {"kind": "mobilenet_v2", "trunk_blocks": 14, "file": self.WEIGHTS}},
            preprocessing={"hu_windows": [[-150, 250]], "size": 224},
            tensors={self.WEIGHTS: {"a.weight": torch.randn(4, 3), "n": torch.tensor(7)}},
            cutoffs=table.to_dict(),
            provenance={"seed": 1},
            card="# Reference\n",
        )
        self.bad = self.folder / "bad"

    def send(self, dice: Dice) -> str:
        from triage.nets.bundle import MANIFEST, BundleError

        shutil.rmtree(self.bad, ignore_errors=True)
        shutil.copytree(self.good, self.bad)
        file = dice.choice((MANIFEST, MANIFEST, "cutoffs.json", self.WEIGHTS))
        content = (self.good / file).read_bytes()
        self.last = damaged(dice, content)
        (self.bad / file).write_bytes(self.last)
        listed = file != MANIFEST and dice.random() < 0.5
        if listed:
            manifest = json.loads((self.bad / MANIFEST).read_bytes())
            manifest["files"][file] = hashlib.sha256(self.last).hexdigest()
            (self.bad / MANIFEST).write_text(json.dumps(manifest))
        try:
            loaded = self._loaded()
        except BundleError as error:
            if "\n" in str(error):
                raise Find("crash", f"more than one line: {error}") from error
            return "BundleError"
        except Exception as error:
            raise Find("crash", f"{type(error).__name__}: {error}"[:300]) from error
        if file != MANIFEST and not listed and self.last != content:
            raise Find("verdict", f"{file} was changed, and nobody noticed")
        return loaded

    def _loaded(self) -> str:
        from triage.decision.table import CutoffTable
        from triage.nets import bundle

        manifest = bundle.verify(self.bad)
        bundle.reference(self.bad)
        for file in manifest.files:
            if file.endswith(".safetensors"):
                tensors = bundle.load_tensors(self.bad, file, manifest)
                if not all(
                    bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point()
                ):
                    raise Find("verdict", "weights that are not finite")
        for entry in CutoffTable.from_bundle(self.bad).targets.values():
            bounds = (0 <= entry.rule_out.cutoff <= entry.rule_in.cutoff <= 1, entry.prevalence > 0)
            if not all(bounds):
                raise Find("verdict", f"cutoffs that contradict themselves: {entry}")
        return "loaded"

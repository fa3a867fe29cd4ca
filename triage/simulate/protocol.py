"""Frozen test configurations: the distributions that a judged set is drawn from.

A protocol was fixed before any network was judged on it, lies beside the code as
`test_protocol/v<version>.json`, and never changes: another one gets another version. It says what
the lesions, look-alikes, phases, scanners and bodies are drawn from, each with its source, and
which patients make up the judged set. Its patients come from seeds that nobody else may use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from triage.simulate.fields import Dice
from triage.simulate.plan import Case, Key, draw_from, marginal, natural
from triage.simulate.ranges import Ranges
from triage.simulate.scanner import Scanner
from triage.simulate.scene import Person
from triage.simulate.strata import Mix, stratum_of, within
from triage.types import Phase, Target

RESERVED = 0x7E57 << 40  # first number of every seed of a protocol's patients
FOLDER = Path(__file__).parent / "test_protocol"
LATEST = "1"


@dataclass(frozen=True)
class JudgedCase:
    """One patient of the judged set. `stratum`: what it was drawn for; `weight`: how often such a
    patient is at natural prevalence, relative to the judged set (mean 1)."""

    number: int
    stratum: str
    case: Case
    anatomy: str
    weight: float


@dataclass(frozen=True)
class Protocol:
    """A loaded configuration; `data` is the file's content."""

    version: str
    sha256: str
    data: Mapping[str, Any]

    def __reduce__(self) -> tuple[type[Protocol], tuple[str, str, Mapping[str, Any]]]:
        return Protocol, (self.version, self.sha256, self.data)

    @property
    def phases(self) -> dict[Phase, float]:
        return {Phase(name): float(p) for name, p in self.data["phases"]["weights"].items()}

    @cached_property
    def ranges(self) -> Ranges:
        return Ranges.from_dict({**self.data["lesions"], **self.data["lookalikes"]})

    @property
    def steps(self) -> dict[float, float]:
        """Slice increment in mm of a written study -> weight."""
        return {float(mm): float(w) for mm, w in self.data["slices"]["increment_mm"].items()}

    def scanner(self, dice: Dice) -> Scanner:
        """Kernel, noise, slice thickness and motion of one patient."""
        kernels, slices = self.data["kernels"]["kinds"], self.data["slices"]
        names = list(kernels)
        kernel = kernels[names[_pick(dice, [kernels[n]["p"] for n in names])]]
        thickness = list(slices["thickness_mm"])
        motion, marks = self.data["motion"], self.data["artefacts"]
        return replace(
            Scanner.draw(dice),
            psf_mm=dice.uniform(*kernel["psf_mm"]),
            slice_mm=float(
                thickness[_pick(dice, [slices["thickness_mm"][mm] for mm in thickness])]
            ),
            noise=dice.uniform(*kernel["noise_hu"]),
            grain_mm=dice.uniform(*kernel["grain_mm"]),
            motion=dice.uniform(*motion["blur_mm"]) if dice.chance(motion["p"]) else 0.0,
            streaks=float(dice.rng.gamma(*marks["streaks_gamma"])),
            blotch=dice.uniform(*marks["blotch"]) if dice.chance(marks["blotch_p"]) else 0.0,
            table=dice.chance(marks["table_p"]),
        )

    def person(self, dice: Dice) -> Person:
        """Body of one parametric patient."""
        body = self.data["body"]
        female = dice.chance(body["female_p"])
        sex = body["female" if female else "male"]
        mass = float(np.clip(dice.normal(0, 1), *body["mass_within"]))
        width = dice.normal(*sex["half_width_mm"]) + body["half_width_mm_a_mass"] * mass
        fat = np.exp(dice.normal(*sex["fat_log_mm"]) + body["fat_log_a_mass"] * mass)
        depth = dice.uniform(*body["depth_to_width"]) + body["depth_to_width_a_mass"] * mass
        visceral = dice.normal(*body["visceral"]) + body["visceral_a_mass"] * mass
        arms = list(body["arms"])
        return replace(
            Person.draw(dice),
            half_width=width,
            half_depth=width * depth,
            fat=float(np.clip(fat, *body["fat_within_mm"])),
            stretch=dice.normal(*sex["length_scale"]),
            muscle=dice.uniform(*sex["abdominal_wall_mm"]),
            female=female,
            belly=dice.uniform(*body["belly"]),
            hips=dice.normal(*sex["hips"]),
            visceral=float(np.clip(visceral, 0, 1)),
            arms=arms[_pick(dice, [body["arms"][kind] for kind in arms])],
        )

    # --- the judged set -------------------------------------------------------------------------

    @property
    def strata(self) -> dict[str, int]:
        """Stratum (`uninjured`, `bowel`, `kidney_high` ...) -> patients."""
        return {name: int(n) for name, n in self.data["judged"]["strata"].items()}

    @property
    def patients(self) -> int:
        """Size of the judged set."""
        return sum(self.strata.values())

    @property
    def anatomies(self) -> dict[str, float]:
        """Held-out anatomy (`parametric`, or the name of a background) -> share."""
        return {str(n): float(p) for n, p in self.data["judged"]["anatomies"].items()}

    @cached_property
    def design(self) -> dict[Key, float]:
        """Probability of each combination of injuries in the judged set."""
        return Mix(self.strata).design

    @cached_property
    def _order(self) -> list[str]:
        names = [name for name, n in self.strata.items() for _ in range(n)]
        Dice([RESERVED]).rng.shuffle(names)
        return names

    def judged(self, number: int) -> JudgedCase:
        """Patient `number` (0 first) of the judged set, the same on every machine."""
        if not 0 <= number < self.patients:
            raise IndexError(f"Expected 0 to {self.patients - 1}, got {number}.")
        dice = Dice([RESERVED, number])
        stratum = self._order[number]
        case = draw_from(within(stratum, natural()), dice)
        names = list(self.anatomies)
        anatomy = names[_pick(dice, [self.anatomies[n] for n in names])]
        weight = natural()[case.key] / self.design[case.key]
        return JudgedCase(number, stratum, case, anatomy, weight)


def _pick(dice: Dice, weights: list[float]) -> int:
    p = np.asarray(weights, dtype=float)
    return int(dice.rng.choice(len(p), p=p / p.sum()))


def expected_positives(protocol: Protocol, target: Target, grade: int | None = None) -> float:
    """Expected patients of the judged set with an injury of a target (or of one grade)."""
    return protocol.patients * marginal(protocol.design, target, grade)


def load(version: str = LATEST) -> Protocol:
    """A protocol by its version; `test` is the latest one. Raises ValueError for an unknown one."""
    known = sorted(path.stem.removeprefix("v") for path in FOLDER.glob("v*.json"))
    chosen = LATEST if version == "test" else version
    if chosen not in known:
        raise ValueError(
            f"There is no test protocol {version!r}: expected test or {', '.join(known)}."
        )
    raw = (FOLDER / f"v{chosen}.json").read_bytes()
    data = json.loads(raw)
    protocol = Protocol(str(data["version"]), hashlib.sha256(raw).hexdigest(), data)
    check(protocol)
    return protocol


def check(protocol: Protocol) -> None:
    """Raise ValueError where a protocol is outside the intended use or contradicts itself."""
    unwanted = set(protocol.phases) - {Phase.ARTERIAL, Phase.PORTAL_VENOUS, Phase.DELAYED}
    if unwanted:
        raise ValueError(f"Expected contrast-enhanced phases only, got {sorted(unwanted)}.")
    slices = protocol.data["slices"]
    for what in ("thickness_mm", "increment_mm"):
        if not all(1 <= float(mm) <= 5 for mm in slices[what]):
            raise ValueError(f"Expected slices of 1 to 5 mm, got {what} {list(slices[what])}.")
    Ranges.from_dict({**protocol.data["lesions"], **protocol.data["lookalikes"]})
    for name in protocol.strata:
        stratum_of(name)
    least = protocol.data["judged"]["at_least"]
    if protocol.strata["uninjured"] < least["negatives"]:
        raise ValueError("The judged set has fewer uninjured patients than its rule asks for.")

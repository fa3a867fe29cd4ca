"""The judged set: the patients of a frozen protocol, made one by one in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from triage.simulate.background import Background
from triage.simulate.patient import Patient, simulate
from triage.simulate.protocol import JudgedCase, Protocol
from triage.simulate.strata import stratum_of

ATTEMPTS = 40


def judged_patient(
    protocol: Protocol, number: int, backgrounds: Mapping[str, Background] | None = None
) -> Patient:
    """Patient `number` of the judged set; `truth["judged"]` holds its `JudgedCase`.

    `backgrounds`: the held-out anatomies that the protocol names, by name. A patient in whom the
    injury of its stratum found no room is made again from the next seed.
    Raises ValueError where an anatomy is missing or no injury finds room.
    """
    plan = protocol.judged(number)
    spacing = tuple(float(mm) for mm in protocol.data["judged"]["spacing_mm"])
    given = backgrounds or {}
    if plan.anatomy != "parametric" and plan.anatomy not in given:
        raise ValueError(
            f"The judged set needs the held-out anatomy {plan.anatomy}, got "
            f"{', '.join(given) or 'none'}: pass its label map as a background."
        )
    own = () if plan.anatomy == "parametric" else (given[plan.anatomy],)
    for attempt in range(ATTEMPTS):
        (patient,) = simulate(
            (number, attempt),
            spacing=spacing,  # type: ignore[arg-type]
            backgrounds=own,
            parametric_share=0.0,
            case=plan.case,
            protocol=protocol,
        )
        if holds(patient, plan):
            patient.truth["judged"] = {**asdict(plan), "attempt": attempt}
            return patient
    raise ValueError(f"No room for {plan.stratum} in {ATTEMPTS} attempts at {plan.anatomy}.")


def holds(patient: Patient, plan: JudgedCase) -> bool:
    """Whether the patient has the injury that its stratum is about (or none at all)."""
    about = stratum_of(plan.stratum)
    if about is None:
        return not any(patient.grades.values())
    target, grade = about
    got = patient.grades[target]
    return got > 0 if grade is None else got == grade

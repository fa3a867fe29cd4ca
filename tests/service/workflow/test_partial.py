"""While images are missing only a suspicion is told."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from stand_in import report

from triage.results.report import refused, report_schema, to_dict
from triage.service.workflow.partial import as_partial
from triage.types import Target, Verdict


def mixed() -> dict[str, Any]:
    whole = to_dict(report("1.2", Verdict.NO_FINDING))
    suspected = to_dict(report("1.2", Verdict.SUSPECTED))
    whole["targets"]["kidney"] = suspected["targets"]["kidney"]
    return whole | {"priority": "stat"}


def test_a_suspicion_stays_and_nothing_else() -> None:
    shown = as_partial(mixed())
    jsonschema.validate(shown, report_schema())
    assert shown["targets"]["kidney"] == mixed()["targets"]["kidney"]
    assert shown["priority"] == "stat"
    for target in set(Target) - {Target.KIDNEY}:
        found = shown["targets"][target]
        assert (found["verdict"], found["probability"]) == ("not_assessed", None)
        assert found["reason"] == "INCOMPLETE_SERIES"
    assert "INCOMPLETE_SERIES" in shown["warnings"][-1]
    assert as_partial(shown) == shown


@pytest.mark.parametrize("verdict", [Verdict.NO_FINDING, Verdict.NOT_EXCLUDED])
def test_without_a_suspicion_it_is_urgent(verdict: Verdict) -> None:
    shown = as_partial(to_dict(report("1.2", verdict)))
    jsonschema.validate(shown, report_schema())
    assert shown["priority"] == "urgent"


def test_a_refusal_stays_as_it_is() -> None:
    refusal = to_dict(refused("GAP"))
    assert as_partial(refusal) == refusal

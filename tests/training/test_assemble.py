"""A draft bundle's cutoffs."""

from __future__ import annotations

from triage.training.assemble import neutral_table
from triage.training.evaluation.prevalence import natural
from triage.types import TARGETS


def test_a_draft_rules_nothing_out() -> None:
    table = neutral_table()
    assert tuple(table.targets) == TARGETS and table.calibrated_on == "simulated"
    for target, entry in table.targets.items():
        assert entry.rule_out.cutoff == 0.0 and entry.rule_out.sensitivity_lower_bound == 0.0
        assert entry.prevalence == natural()[target]

"""Drills: what can go wrong around the service is made to go wrong, again and again.

Each drill is a function that takes a folder and a number of rounds, raises AssertionError where
something is lost, told twice or told wrongly, and returns figures. Short ones run here as tests;
`scripts/drills` runs them for long and writes a table, together with the tests elsewhere that are
drills already (`table.py` names them).
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
for _folder in (_ROOT, _ROOT / "tests" / "service"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

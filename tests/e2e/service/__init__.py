"""The whole service with real peers. Helpers of tests/service are used here as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))

"""Reading: from a path to gated series (`open_study`) and to their voxels in HU (`decode`).

Everything that looks into a file runs in a child process with limits (`child`). What may enter is
written down in two tables: `syntax.SYNTAXES` and `gate.SLICE_CHECKS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .intake import open_study
    from .stack import decode

__all__ = ["decode", "open_study"]


def __getattr__(name: str) -> Any:
    """Loads the functions when they are first used: the child process starts faster without."""
    if name == "open_study":
        from .intake import open_study

        return open_study
    if name == "decode":
        from .stack import decode

        return decode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

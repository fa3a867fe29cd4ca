"""Texts of the pages: one JSON table a language, the same keys in each."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from triage.reasons import REASONS

LANGUAGES: dict[str, str] = {"en": "English", "ja": "日本語"}
DEFAULT = "en"


@cache
def table(language: str) -> dict[str, str]:
    """key -> text. The English reasons are those of `triage.reasons`."""
    text = files(__package__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)
    if language == DEFAULT:
        for code, (message, fix) in REASONS.items():
            found[f"reason.{code}.message"], found[f"reason.{code}.fix"] = message, fix
    return found


class Words:
    """The texts of one language: `words("row.images", n=3)`; KeyError for an unknown key."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else DEFAULT
        self._table = table(self.language)

    def __call__(self, key: str, **values: object) -> str:
        text = self._table[key]
        return text.format(**values) if values else text

    def known(self, key: str, otherwise: str = "") -> str:
        """For keys that are made of what a report says: a text, or what it says."""
        return self._table.get(key, otherwise)

    def script(self) -> dict[str, str]:
        """Texts that the scripts need, without their prefix."""
        return {k[3:]: v for k, v in self._table.items() if k.startswith("js.")}


def preferred(accept: str) -> str:
    """The first language of an Accept-Language header that we have (RFC 9110, 12.5.4)."""
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept[:200].split(",")):
        name, _, weight = part.strip().partition(";q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        ranked.append((-quality, place, name.partition("-")[0].lower()))
    return next((name for _, _, name in sorted(ranked) if name in LANGUAGES), DEFAULT)

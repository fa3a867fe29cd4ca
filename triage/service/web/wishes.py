"""What a person asked of the pages: language, theme, hidden patients. Cookies, no secret."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from triage.service.access.principal import Principal, local
from triage.service.web.words import LANGUAGES, Words, preferred

THEMES = ("dark", "light")
YEAR_S = 365 * 24 * 3600
VALUES = {"lang": tuple(LANGUAGES), "theme": THEMES, "mask": ("0", "1")}


@dataclass(frozen=True, slots=True)
class Wishes:
    """`mask`: names, numbers and ages of patients are not sent to this browser."""

    words: Words
    theme: str
    mask: bool


def wishes(request: Request) -> Wishes:
    """From the cookies; else what the browser says, and dark."""
    language = _cookie(request, "lang") or preferred(request.headers.get("accept-language", ""))
    hidden = _cookie(request, "mask") == "1" or who(request).mask
    return Wishes(Words(language), _cookie(request, "theme") or THEMES[0], hidden)


def who(request: Request) -> Principal:
    """Who asks; on pages that need no right, nobody may be known."""
    found = getattr(request.state, "principal", None)
    return found if isinstance(found, Principal) else local()


def _cookie(request: Request, name: str) -> str | None:
    value = request.cookies.get(f"triage_{name}")
    return value if value in VALUES[name] else None


def keep(response: Response, secure: bool, wanted: dict[str, str | None]) -> None:
    """Set the cookies of the values that are known; others are ignored."""
    for name, value in wanted.items():
        if value in VALUES[name]:
            response.set_cookie(
                f"triage_{name}", value, YEAR_S, httponly=True, samesite="strict", secure=secure
            )


def own_path(text: str) -> str:
    """A path of ours to go on to, never another site: "/" for anything else."""
    parts = urlsplit(text)
    fine = text.startswith("/") and not text.startswith(("//", "/\\"))
    if not fine or parts.scheme or parts.netloc or not text.isprintable() or "\\" in text:
        return "/"
    return text[:1000]

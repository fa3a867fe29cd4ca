"""Jinja2 templates into answers, with what every page needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from triage import __version__
from triage.service.access.principal import Role
from triage.service.web import assets
from triage.service.web.wishes import THEMES, who, wishes
from triage.service.web.words import LANGUAGES
from triage.types import DISCLAIMER


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("triage.service.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["asset"] = assets.address
    environment.filters["clock"] = clock
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment


def prepare() -> None:
    """Compile and compress everything now, not for the first reader."""
    for name in _templates().list_templates():
        _templates().get_template(name)
    assets.version()


def clock(moment: str | datetime | None) -> str:
    """A time in UTC for browsers without scripts; with them it turns into the reader's own."""
    if moment is None:
        return ""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M") + " UTC"


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The template as an answer. `values` hold text as it came: templates escape."""
    asked = wishes(request)
    known = hasattr(request.state, "principal")
    principal = who(request)
    common = {
        "t": asked.words,
        "lang": asked.words.language,
        "languages": LANGUAGES,
        "theme": asked.theme,
        "other_theme": THEMES[1 - THEMES.index(asked.theme)],
        "mask": asked.mask,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "disclaimer": DISCLAIMER,
        "program": __version__,
        "known": known,
        "is_admin": known and principal.may(Role.ADMIN),
        "user": principal.name if known and principal.how != "local" else "",
        "csrf": principal.csrf,
    }
    text = _templates().get_template(template).render(common | values)
    headers = {"Content-Security-Policy": assets.POLICY, "Vary": "Cookie, Accept-Language"}
    return HTMLResponse(text, status, headers=headers)

"""Every route of the app, and what docs/ACCESS.md says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "ACCESS.md"
FILLED = {
    "target": "liver",
    "study_instance_uid": "1.2.3",
}


class Route(NamedTuple):
    name: str
    method: str
    path: str

    @property
    def label(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def url(self) -> str:
        """With its parameters filled in: of a study that is not there."""
        return re.sub(r"{(\w+)(:\w+)?}", lambda m: FILLED.get(m[1], "0" * 32), self.path)


def every_route(app: FastAPI) -> tuple[list[Route], list[BaseRoute]]:
    """Routes that pass the guard, and those that do not (files)."""
    guarded, others = [], []
    for route in _flat(app.router.routes):
        if isinstance(route, APIRoute):
            guarded += [Route(route.name, method, route.path) for method in sorted(route.methods)]
        else:
            others.append(route)
    return guarded, others


def _flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        inner = getattr(route, "original_router", None)  # FastAPI keeps included routers whole
        if inner is None:
            yield route
        else:
            yield from _flat(inner.routes)


def documented() -> dict[str, frozenset[str]]:
    """`METHOD path` -> roles that docs/ACCESS.md names; {"everybody"} where no login is needed."""
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| ([^|]+) \|", DOCUMENT.read_text("utf-8"), re.M)
    assert len(rows) == len(dict(rows)), "a route stands twice in docs/ACCESS.md"
    return {label: frozenset(re.split(r",\s*", roles.strip())) for label, roles in rows}

"""Scripts, styles and pinned libraries, files beside this one; nothing from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

FOLDER = Path(__file__).with_name("static")
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
SMALL = 1400  # bytes; less is not worth compressing
FOREVER = "public, max-age=31536000, immutable"
# Scripts may not be inlined, nor come from elsewhere. WebAssembly and blob: are NiiVue's.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; media-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def _files() -> dict[str, Path]:
    """Name -> path of what may be asked for: names are compared, never joined to a path."""
    every = (p for p in FOLDER.rglob("*") if p.is_file() and p.suffix in KINDS)
    return {p.relative_to(FOLDER).as_posix(): p for p in every}


@cache
def _content(name: str) -> tuple[bytes, bytes | None]:
    """The file, and compressed where that is worth it."""
    data = _files()[name].read_bytes()
    return data, gzip.compress(data, 6, mtime=0) if len(data) > SMALL else None


@cache
def version() -> str:
    """Changes with every file: part of each address, so that browsers may keep them."""
    every = hashlib.sha256()
    for name in sorted(_files()):
        every.update(name.encode() + b"\0" + _content(name)[0] + b"\0")
    return every.hexdigest()[:12]


def address(name: str) -> str:
    """Where a file is served. KeyError for one that is not there."""
    if name not in _files():
        raise KeyError(name)
    return f"/static/{version()}/{name}"


async def _serve(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _files():
        raise HTTPException(404, "There is no such file.")
    plain, small = _content(name)
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
    if request.path_params["version"] == version():
        headers["Cache-Control"] = FOREVER
    body = plain
    if small is not None and "gzip" in Headers(scope=request.scope).get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = small
    return Response(body, media_type=KINDS[_files()[name].suffix], headers=headers)


def mount() -> Mount:
    """/static/<version>/<name>: no login, for there is nothing of a patient in it."""
    return Mount("/static", routes=[Route("/{version}/{name:path}", _serve)], name="static")

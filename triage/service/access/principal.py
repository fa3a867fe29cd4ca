"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from fastapi import Depends, Request

from triage.service.errors import unauthorized


class Role(StrEnum):
    """What somebody may do. A person may have several; `admin` may do everything."""

    VIEWER = "viewer"  # sees studies, says "seen"
    SENDER = "sender"  # sends images, sees nothing
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and how it is known. `name` of an API token is `token:` and its name.

    `local`: loopback without any user; whoever has this machine. `key`: of the session or token, to
    tell two of the same person apart; no secret. `mask`: patient fields are to be hidden.
    """

    name: str
    roles: frozenset[Role]
    how: Literal["local", "session", "token"]
    address: str = ""
    key: str = ""
    csrf: str = ""
    mask: bool = False

    def may(self, *roles: Role) -> bool:
        """Whether one of these roles is there, or `admin`."""
        return Role.ADMIN in self.roles or not self.roles.isdisjoint(roles)


def local(address: str = "", mask: bool = False) -> Principal:
    """Whoever sits at this machine, where nobody needs to log in."""
    return Principal("local", frozenset(Role), "local", address, mask=mask)


def get_principal(request: Request) -> Principal:
    """The principal that `guard.authorise` found. Raises ApiError 401 where nobody is known."""
    found = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise unauthorized()
    return found


Who = Annotated[Principal, Depends(get_principal)]

"""The one table of rights: name of a route (its function) -> the roles that may use it.

`guard.authorise` refuses a route that stands in none of these tables; a test walks all routes.
"""

from __future__ import annotations

from triage.service.access.principal import Role

Roles = frozenset[Role]
READ: Roles = frozenset({Role.VIEWER, Role.ADMIN})
SEND: Roles = frozenset({Role.SENDER, Role.ADMIN})
MANAGE: Roles = frozenset({Role.ADMIN})
ANYBODY: Roles = frozenset(Role)  # who is logged in, whatever the role

# No login: these say nothing about patients.
OPEN: frozenset[str] = frozenset(
    {
        "healthz",
        "readyz",
        "start_session",
        "get_session",
        "login_page",
        "set_preferences",
    }
)
# Mounts and plain Starlette routes, which `guard.authorise` does not see: files of ours only.
OPEN_MOUNTS: frozenset[str] = frozenset({"static"})

API: dict[str, Roles] = {
    # studies
    "list_studies": READ,
    "get_study": READ,
    "acknowledge_study": READ,
    "upload_study": SEND,
    "delete_study": MANAGE,
    "cancel_study": MANAGE,
    "analyse_study": MANAGE,
    # pictures and volumes
    "get_overlay": READ,
    "get_saliency": READ,
    "get_mesh": READ,
    "get_volume": READ,
    "get_scene": READ,
    "export_study": MANAGE,
    # what readers say
    "review_finding": READ,
    "list_reviews": READ,
    "export_reviews": MANAGE,
    # what happens
    "get_events": READ,
    "list_cohorts": READ,
    "get_cohort": READ,
    "list_quarantine": MANAGE,
    # PACS: to look is to read, to fetch is to send
    "find_in_pacs": READ,
    "fetch_from_pacs": SEND,
    # deliveries and orders
    "list_deliveries": MANAGE,
    "resend_delivery": MANAGE,
    "deliver_study": MANAGE,
    "list_orders": READ,
    "post_order": SEND,
    # STOW-RS
    "store": SEND,
    "store_study": SEND,
    # sessions
    "change_session": ANYBODY,
    "end_session": ANYBODY,
    # the machine
    "get_drift": READ,
    "metrics": READ,
    "openapi": ANYBODY,
}

# HTML: asked without a right, a browser is led to the login (303).
PAGES: dict[str, Roles] = {
    "worklist_page": READ,
    "worklist_rows": READ,
    "study_page": READ,
    "admin_page": MANAGE,
}

# Looks at patients' data -> how the audit log calls them, and what was looked at. A route with
# {study} in its path names the study.
LOOKS: dict[str, tuple[str, str]] = {
    "list_studies": ("list.opened", ""),
    "get_events": ("list.opened", ""),
    "worklist_page": ("list.opened", ""),
    "worklist_rows": ("list.opened", ""),
    "study_page": ("study.opened", ""),
    "find_in_pacs": ("pacs.searched", ""),
    "list_orders": ("list.opened", ""),
    "get_study": ("study.opened", ""),
    "get_overlay": ("study.exported", "overlays"),
    "get_saliency": ("study.exported", "saliency"),
    "get_mesh": ("study.exported", "meshes"),
    "get_volume": ("study.exported", "volumes"),
    "get_scene": ("study.exported", "volumes"),
    "export_reviews": ("study.exported", "reviews"),
}


def allowed(route: str) -> Roles | None:
    """The roles that may use this route; None where nobody said so (OPEN is asked before)."""
    return API.get(route) or PAGES.get(route)

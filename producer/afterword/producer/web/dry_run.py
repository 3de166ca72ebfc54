"""Forms that change something: the first answer is a dry run, with a form that does it."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from afterword.producer.web.console import Visit


def applies(visit: Visit) -> bool:
    """Return whether somebody has seen what would be done, and wants it."""
    return visit.asked("apply") == "yes"


def after_dry_run(
    visit: Visit, *, back: str, button: str, note: str = "", **shown: Any
) -> Response:
    """Lead back once it is done; before that, show what would be, and the button that does it.

    Without a button there is nothing to do.
    """
    if applies(visit):
        return RedirectResponse(back, 303)
    fields = {name: texts[0] for name, texts in visit.form.items() if name not in ("csrf", "apply")}
    form = {"fields": fields, "back": back, "button": button, "note": note, "replaced": []}
    return visit.page("dry_run.html", **form | shown)

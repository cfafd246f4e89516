"""What the parts of the Alerts page are made of: buttons, links, small facts, and how long ago something was."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import data, link, popover
from millicent.dashboard.pages.alerts_place import Opened
from millicent.dashboard.state import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.alerts_place import Opening

SMALL: Final = "button small-text"
Tone = Literal["good", "warn", "bad", "muted"]


def button(
    words: Any, do: str, *, className: str = "button", submit: bool = False, title: str | None = None, **told: Any  # noqa: N803 - as Dash spells it
) -> Component:  # fmt: skip
    """What asks the server for an act with what is `told`; with `submit` also with what its form holds."""
    more: dict[str, Any] = {"title": title} if title else {}
    return html.Button(words, type="submit" if submit else "button", className=className,
                       **data(do=do, to="alerts-do", told=json.dumps(told)), **more)  # fmt: skip


def opener(face: Any, kind: Opening, /, className: str = "", **told: object) -> Component:  # noqa: N803 - as Dash spells it
    """What opens the drawer at something; the address keeps all else."""
    what = Opened.of(kind, **told).written
    more = {"className": className} if className else {}
    return link(face, f"?v={VERSION}&open={quote(what, safe='')}", **data(opens=what), **more)


def confirm(face: Any, words: str, body: Sequence[Any], look: str = SMALL) -> Component:
    """A button that opens what it would mean, and the buttons that mean it."""
    return popover(html.Span(face, className=look), [html.P(words), *body], className="confirm")


def tag(words: Any, tone: Literal["plain", "warn", "bad", "good"], title: str) -> Component:
    """A small fact."""
    return html.Span(words, className="tag" if tone == "warn" else f"tag {tone}", title=title)


def lamp(words: Any, tone: Tone) -> Component:
    """How something is, after a lamp of its colour."""
    return html.Span([html.I(className="lamp") if tone != "muted" else None, html.Span(words)],
                     className=f"status {tone}")  # fmt: skip


def select(name: str, words: str, options: Mapping[Any, str], chosen: str = "") -> Component:
    """A field of a form with a few choices."""
    choices: list[Any] = [
        html.Option(text, value=value, **({"selected": "selected"} if value == chosen else {}))  # type: ignore[arg-type]
        for value, text in options.items()
    ]
    return html.Label([html.Span(words), html.Select(choices, name=name)], className="entry")


def ago(instant: datetime, now: datetime) -> str:
    """How long ago, as people say it: `just now`, `5 min ago`, `3 h ago`, `2 days ago`, `22 Nov 14:00`."""
    passed = now - instant
    if passed < timedelta(minutes=1):
        return "just now"
    if passed < timedelta(hours=1):
        return f"{passed // timedelta(minutes=1)} min ago"
    if passed < timedelta(days=1):
        return f"{passed // timedelta(hours=1)} h ago"
    days = passed // timedelta(days=1)
    return f"{days} day{'' if days == 1 else 's'} ago" if days < 14 else fmt.moment(instant)


def exact(instant: datetime) -> str:
    """An instant as a tooltip tells it."""
    return f"{fmt.moment(instant)} {fmt.local(instant):%Y} {fmt.zone()}"

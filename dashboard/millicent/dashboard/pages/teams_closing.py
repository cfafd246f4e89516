"""Closing a month on the screen: what it means, and the form for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import data, icon, link

if TYPE_CHECKING:
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.months import Closing, Month
    from millicent.dashboard.pages.teams_place import Looked

MEANS: Final = (
    "Its amounts never change again, and its statements are final. This cannot be undone.",
    "Calls that come late, other prices and corrections are charged as adjustments of the month they become known in.",
    "Its policies and tags stay as they are; its statements keep the exchange rates that are known now.",
    "Numbers of calls and tokens may still grow.",
)


def closed(closing: Closing) -> Component:
    """Of a month that is closed."""
    when = html.B(f"{fmt.moment(closing.at)} {fmt.local(closing.at):%Y}")
    who: list[Any] = [icon("check"), "Closed on ", when, " by ", html.Bdi(closing.by)]
    return html.Div([html.P(who, className="done"), _means("What that means")], className="closing")


def not_over(month: Month, ends: datetime, place: Looked) -> Component:
    """Of a month that is not over."""
    words: list[Any] = [f"{month.words} can be closed from ", html.B(f"{fmt.moment(ends)} {fmt.zone()}"), " on."]
    before = link(f"Go to {month.before().words}", place.href(month=month.before()), className="button",
                  **data(keep="as"))  # fmt: skip
    return html.Div([html.P(words), _means("What closing means"), html.Div(before, className="pager")],
                    className="closing")  # fmt: skip


def form(month: Month, zone: str, *, operates: bool) -> Component:
    """Of a month that can be closed; the form is for whoever may."""
    if not operates:
        return html.Div([_means("What closing means"), html.P("An operator can close it.", className="quiet")],
                        className="closing")  # fmt: skip
    sure = html.Label(
        [html.Span(f"The amounts of {month.words} are final"),
         html.Select([html.Option("not yet", value=""), html.Option("yes, close it for good", value="yes")],
                     name="sure")],
        className="entry",
    )  # fmt: skip
    hidden = html.Div(
        html.Button(f"Close {month.words}", type="submit", className="button primary",
                    **data(do="close", to="chargeback-do", told=f'{{"month":"{month.written}","tz":"{zone}"}}')),
        className="pager",
    )  # fmt: skip
    return html.Div([_means("What closing means"), html.Form([sure, hidden], className="form")], className="closing")


def _means(title: str) -> Component:
    return html.Div([html.H3(title), html.Ul([html.Li(one) for one in MEANS], className="rule-words")])

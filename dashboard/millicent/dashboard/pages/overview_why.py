"""What changed: the kinds of change that lead from one period to the other, and who moved most."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard import tables
from millicent.dashboard.state import question
from millicent.warehouse import drivers

if TYPE_CHECKING:
    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.reader import Reader
    from millicent.warehouse.drivers import Bridge, Effect
    from millicent.warehouse.query import Query

EFFECTS: Final = 4
MOVES: Final = 4
NONE: Final = ["What changed", None, ""]


def changed(reader: Reader) -> list[Any]:
    """Title, body and words of the panel."""
    period, prior = reader.window.period, reader.window.prior
    teams, models = reader.over(("spend_usd",), "team"), reader.over(("spend_usd",), "model")
    known = [usd for usd in teams["spend_usd"].to_list() if usd is not None]
    if not known:
        return NONE
    before = {name: reader.before(("spend_usd",), name) for name in ("team", "model")}
    groups = [
        (f"By {name}", tables.moves(frame, before[name], name, reader.colours(name), reader.view)[:MOVES])
        for name, frame in (("team", teams), ("model", models))
    ]

    def ask(query: Query) -> pl.DataFrame:
        return reader.warehouse.ask(reader.tenant, query).frame

    bridge = drivers.bridge(ask, question(reader.view, period, ("spend_usd",)), prior) if prior else None
    if prior is None or bridge is None or bridge.before_usd is None:
        whole = sum(known, Decimal(0))
        return ["Where it went", tables.changes(groups, whole), "largest first"]
    against = fmt.span(prior.start, prior.end, year=False)
    words = [html.B(fmt.usd_change(bridge.delta_usd)), f" against {against}"]
    return ["What changed", html.Div([_effects(bridge), tables.changes(groups)]), words]


def _effects(bridge: Bridge) -> Component:
    """The kinds of change that count most, and all others as one: they add up to the change."""
    ranked = sorted((one for one in bridge.effects if one.amount_usd), key=lambda one: -abs(one.amount_usd))
    shown = ranked[: EFFECTS if len(ranked) <= EFFECTS else EFFECTS - 1]
    rest = sum((one.amount_usd for one in ranked[len(shown) :]), Decimal(0))
    lines = [_effect(one) for one in shown]
    if len(ranked) > len(shown):
        lines.append(_line("All others", rest, ", ".join(one.title for one in ranked[len(shown) :])))
    return html.Dl(lines, className="drivers")


def _effect(one: Effect) -> Component:
    return _line(one.title, one.amount_usd, one.words)


def _line(title: str, amount: Decimal, words: str) -> Component:
    tone = "bad" if amount > 0 else "good" if amount < 0 else "neutral"
    return html.Div([html.Dt(title), html.Dd(fmt.usd_change(amount), className=tone)], title=words)

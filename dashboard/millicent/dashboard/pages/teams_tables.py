"""Tables of the Teams page: teams with their lines, months as columns, other policies, and calls without a team."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import IDLE_COLOUR, OTHER_COLOUR, UNKNOWN_COLOUR, label
from millicent.dashboard.components import aria, data, delta, dot, link
from millicent.dashboard.pages.efficiency_policy import HEADS, IDLE_WORDS
from millicent.dashboard.pages.teams_place import days
from millicent.dashboard.pages.teams_statement import money
from millicent.dashboard.state import address
from millicent.dashboard.statements import NOBODY, ROUNDING, added, cents
from millicent.warehouse.record import CHARGE, IDLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.months import Month
    from millicent.dashboard.pages.efficiency_preview import Carried
    from millicent.dashboard.pages.teams_place import Looked
    from millicent.dashboard.statements import Amount, Monthly, Past
    from millicent.pricing.idle import IdlePolicy

COLUMNS: Final = {
    "API": ("api",), "Own hardware": ("hardware",), "Idle share": ("idle", "unavailable", "untracked"),
    "Charges": ("charge", "adjustment"),
}  # fmt: skip
STACKED: Final = (("api", ("api",)), ("busy", ("hardware",)), ("idle", ("idle", "unavailable", "untracked")),
                  ("charge", ("charge", "adjustment")))  # fmt: skip
MOST_TEAMS: Final = 60
MOST_CARRIED: Final = 10
MOST_ORPHANS: Final = 8
_NOTHING: Final = Decimal(0)


def teams(
    whole: Monthly, before: Mapping[str | None, Mapping[str, Amount]], place: Looked,
    colour_of: Mapping[str | None, str],
) -> Component:  # fmt: skip
    """Teams, dearest first, then calls without a team, then what no team carries; cents add up to everybody's month."""
    named = whole.named
    shown: list[str | None] = [*named[:MOST_TEAMS], *(name for name in place.who if name in named[MOST_TEAMS:])]
    rest = tuple(name for name in named if name not in shown)
    lines = [_team(name, whole, before, place, colour_of.get(name, OTHER_COLOUR)) for name in shown]
    if rest:
        lines.append(_row(html.Span(f"and {len(rest)} more teams"), rest, whole, before))
    if None in whole.teams:
        lines.append(_team(None, whole, before, place, UNKNOWN_COLOUR, "unattributed"))
    beside: tuple[str | None, ...] = tuple(name for name in (IDLE, CHARGE) if name in whole.teams)
    if beside:
        face = [dot(IDLE_COLOUR, hatched=True), html.Span("What no team carries", className="name")]
        lines.append(_row(html.Span(face), beside, whole, before, "idle"))
    nobody = NOBODY if None in whole.teams else ()
    groups: list[tuple[str | None, ...]] = [*((name,) for name in shown), rest, nobody, beside]
    added_up = (cents(whole.total(group)) or _NOTHING for group in groups if group)
    left = (cents(whole.total()) or _NOTHING) - sum(added_up, _NOTHING)
    if left:
        lines.append(html.Tr([html.Th(ROUNDING, scope="row"), *[html.Td()] * len(COLUMNS), html.Td(money(left)),
                              html.Td()]))  # fmt: skip
    heads = ("Team", *COLUMNS, "Total", "Δ")
    foot = _row(link("Everybody", place.of(*place.who), **data(keep="as")) if place.who else "Everybody", (), whole,
                before)  # fmt: skip
    table = html.Table(
        [html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(lines), html.Tfoot(foot)],
        className="payers",
    )
    return html.Div(table, className="scroll")


def months(found: Sequence[Past], place: Looked, shown: Month) -> Component:
    """Columns, one a month, stacked by where the money went; each leads to its month."""
    tallest = max((_height(one) for one in found), default=_NOTHING)
    newest = found[-1].month
    items = []
    for one in found:
        stack = [
            html.I(className=kind, style={"height": f"{amount / tallest:.2%}"})
            for kind, kinds in reversed(STACKED)
            if tallest and (amount := _sum(one.kinds, kinds)) > 0
        ]
        told = money(cents(one.total)) if one.kinds else "nothing"
        state = "closed" if one.closed else "open"
        words = f"{one.month.words}: {told}, {state}"
        face = [
            html.Small(fmt.usd(one.total) if one.kinds else "·"),
            html.Span(stack, className="column"),
            html.Span(
                [one.month.short, html.I("✓", className="tick-of", **aria(hidden="true")) if one.closed else None]
            ),
            html.Span(words, className="unseen"),
        ]
        here = aria(current="true") if one.month == shown else {}
        href = place.href(month=None if one.month == newest else one.month)
        items.append(html.Li(link(face, href, title=words, **data(keep="as"), **here)))
    legend = [
        html.Li(html.Span([html.I(className=f"dot {kind}", **aria(hidden="true")), words]))
        for kind, words in (("api", "API"), ("busy", "Own hardware, used"), ("idle", "Idle share"),
                            ("charge", "Charges"))
        if any(_sum(one.kinds, dict(STACKED)[kind]) > 0 for one in found)
    ]  # fmt: skip
    return html.Div([html.Ul(legend, className="legend"), html.Ol(items, className="columns-of")])


def otherwise(carried: Carried, whole: Monthly, now: IdlePolicy, place: Looked) -> Component:
    """What teams would carry of idle and unavailable hardware by each policy, beside what they pay without it."""
    if not carried:
        return html.P("Nothing was idle or unavailable in this month, so there is nothing to carry.", className="quiet")
    names = {name for shares in carried.values() for name in shares if name is not None}
    ranked = sorted(names, key=lambda name: (-carried["spread by use"].get(name, _NOTHING), name))
    lines = []
    for name in ranked[:MOST_CARRIED]:
        head = link(html.Span(name, className="name"), place.of(name), **data(keep="as"))
        shares = {policy: amounts.get(name) for policy, amounts in carried.items()}
        lines.append(_carried(head, _direct(whole, name), shares, now, "selected" if name in place.who else ""))
    if rest := ranked[MOST_CARRIED:]:
        together = {policy: added(amounts.get(name, _NOTHING) for name in rest) for policy, amounts in carried.items()}
        direct = added(_direct(whole, name) for name in rest)
        lines.append(_carried(f"and {len(rest)} more teams", direct, together, now))
    alone = {policy: amounts.get(None) for policy, amounts in carried.items()}
    face = html.Span([dot(IDLE_COLOUR, hatched=True), html.Span("Nobody, its own line")])
    lines.append(_carried(face, None, alone, now, "idle"))
    heads = [html.Th("Would carry", scope="col"), html.Th("Without idle", scope="col")]
    heads += [
        html.Th([words, html.Small("now") if policy == now else None], scope="col", title=IDLE_WORDS[policy],
                className="now" if policy == now else "")
        for policy, words in HEADS.items()
    ]  # fmt: skip
    caption = html.Caption("What each team would carry of idle and unavailable cost, by policy", className="unseen")
    table = html.Table([caption, html.Thead(html.Tr(heads)), html.Tbody(lines)], className="carriers")
    where = html.A("Efficiency", href="/efficiency#policy")
    hint = html.P(["The policy is set on ", where, " and holds for hours of open months alone."], className="quiet")
    return html.Div([html.Div(table, className="scroll"), hint])


def orphans(rows: Sequence[Mapping[str, Any]], place: Looked, whole: Monthly) -> Component:
    """Calls without a team by the service that sent them, and the way to the calls."""
    if not rows:
        return html.P("Every call of this month carries a team.", className="quiet")
    ranked = sorted(rows, key=lambda row: (-(row["spend_usd"] or _NOTHING), str(row["service"]), str(row["model"])))
    lines = [_orphan(row) for row in ranked[:MOST_ORPHANS]]
    if rest := ranked[MOST_ORPHANS:]:
        spend, calls = added(one["spend_usd"] for one in rest), sum(one["calls"] or 0 for one in rest)
        more = {"service": f"and {len(rest)} more", "model": "", "spend_usd": spend, "calls": calls}
        lines.append(_orphan({**more, "unpriced_calls": 0}))
    shown = ("cur", place.view.currency), ("tz", place.view.zone)
    found = address((("p", days(whole.month)), ("team", ""), *shown))
    ways = html.P([link("Show the calls", f"/requests{found}", className="button"), " ",
                   link("Give them a team", "/quality", className="button")])  # fmt: skip
    heads = ("Service", "Model", "Calls", "Spend")
    table = html.Table([html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(lines)],
                       className="orphans")  # fmt: skip
    return html.Div([html.Div(table, className="scroll"), ways])


def _team(
    name: str | None, whole: Monthly, before: Mapping[str | None, Mapping[str, Amount]], place: Looked, colour: str,
    look: str = "",
) -> Component:  # fmt: skip
    face = [dot(colour), html.Span(label("team", name), className="name")]
    chosen = place.who == (name,)
    head = link(face, place.of(name), title=f"The statement of {label('team', name)}", **data(keep="as"))
    return _row(head, (name,), whole, before, f"{look} selected" if chosen else look)


def _row(
    face: Any, who: tuple[str | None, ...], whole: Monthly, before: Mapping[str | None, Mapping[str, Amount]],
    look: str = "",
) -> Component:  # fmt: skip
    now = whole.of(who)
    total = whole.total(who)
    earlier = [parts for name, parts in before.items() if not who or name in who]
    was = added(added(parts.values()) for parts in earlier)
    change = fmt.change(total, was, unit="usd", better="lower", digits=0) if was else None
    cells = [
        html.Td("·" if not any(kind in now for kind in kinds) else money(
            cents(added(now[kind] for kind in kinds if kind in now))
        ))
        for kinds in COLUMNS.values()
    ]  # fmt: skip
    return html.Tr([html.Th(face, scope="row"), *cells, html.Td(html.B(money(cents(total)))),
                    html.Td(delta(change, "new" if total and not was else ""))], className=look)  # fmt: skip


def _carried(
    face: Any, direct: Amount, shares: Mapping[IdlePolicy, Amount], now: IdlePolicy, look: str = ""
) -> Component:
    cells = [
        html.Td("·" if shares.get(policy) is None else money(cents(shares[policy])),
                className="now" if policy == now else "")
        for policy in HEADS
    ]  # fmt: skip
    first = html.Td("·" if direct is None else money(cents(direct)))
    return html.Tr([html.Th(face, scope="row"), first, *cells], className=look)


def _orphan(row: Mapping[str, Any]) -> Component:
    unknown = row["spend_usd"] is None and row["unpriced_calls"]
    return html.Tr([
        html.Th(html.Span(row["service"] or "Unknown", className="name"), scope="row"),
        html.Td(html.Span("Unknown" if row["model"] is None else row["model"], className="name")),
        html.Td(fmt.count(row["calls"])),
        html.Td("unpriced" if unknown else money(cents(row["spend_usd"]))),
    ])  # fmt: skip


def _direct(whole: Monthly, name: str) -> Amount:
    """What a team pays without what it carries of idle and unavailable hardware."""
    return added(amount for kind, amount in whole.of((name,)).items() if kind not in {"idle", "unavailable"})


def _sum(kinds: Mapping[str, Amount], names: Sequence[str]) -> Decimal:
    return sum((kinds.get(name) or _NOTHING for name in names), _NOTHING)


def _height(one: Past) -> Decimal:
    """How tall a column is: credits have none."""
    return sum((max(_sum(one.kinds, kinds), _NOTHING) for _, kinds in STACKED), _NOTHING)

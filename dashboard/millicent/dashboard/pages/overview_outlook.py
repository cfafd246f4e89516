"""What the Overview tells of the time to come: this month's forecast against its budget, and days out of line.

All of it looks at the month in which we are, whatever period the page shows, and at the same history by team.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import charts, outlook_figures
from millicent.dashboard import format as fmt
from millicent.dashboard.components import data, dot, link, pill, popover
from millicent.dashboard.pages.asked_once import asked_once
from millicent.dashboard.pages.budgets_words import (
    amounts_in,
    bar,
    date_words,
    expected,
    forecast_facts,
    last_words,
    period_name,
    share,
    tone,
    verdict_tone,
)
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.state import FILTERS, VERSION, question
from millicent.warehouse import outlook, standings
from millicent.warehouse.budgets import FIRST, Budget, live
from millicent.warehouse.outlook import Anomaly, Daily
from millicent.warehouse.query import Filter, Period
from millicent.warehouse.record import CHARGE, IDLE
from millicent.warehouse.standings import Standing, Untold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.reader import Reader
    from millicent.dashboard.state import View
    from millicent.warehouse.outlook import Day
    from millicent.warehouse.standings import Outlook

AHEAD: Final = 7
"""Days to come that the chart shows at least; else those to the end of the month."""
MOST: Final = 5
"""Budgets that are listed."""
MOST_ODD: Final = 7
FLOOR: Final = Decimal("0.05")
"""Share of what a day costs in all below which a rise does not matter."""
SET: Final = "millicent budgets set Company 27500"


def month(reader: Reader) -> Outlook:
    """What the month will have come to of what the page is narrowed to."""
    scope = _scope(reader)
    return standings.looked_at(_frame(reader, scope), scope, _at(reader))


def stands(reader: Reader) -> tuple[list[Standing], list[str]]:
    """How all budgets of the tenant stand, and why others cannot be told of: their currency has no rate."""
    at = _at(reader)
    held = live(reader.warehouse.control, reader.tenant, at)
    key = (reader.tenant, "budgets", *held)
    found: tuple[list[Standing], list[str]] = asked_once(reader.warehouse, key, lambda: _stood(reader, at))
    return found


def _stood(reader: Reader, at: datetime) -> tuple[list[Standing], list[str]]:
    found = standings.live_standings(reader.warehouse, reader.tenant, at)
    untold = [f"{one.budget.name}: {one.failure}" for one in found if isinstance(one, Untold)]
    return [one for one in found if isinstance(one, Standing)], untold


def of_view(found: Sequence[Standing], view: View) -> Standing | None:
    """The budget of just what a page is narrowed to, months first."""
    wanted = {(name, frozenset(values), False) for name, values in view.filters}
    same = [
        one
        for one in found
        if {(kept.dimension, frozenset(kept.values), kept.negated) for kept in one.budget.filters} == wanted
        and one.budget.basis == view.basis
    ]
    return min(same, key=lambda one: one.budget.period != "month", default=None)


# ---- the card


def card(reader: Reader) -> Component:
    """What the month will have come to, against its budget."""
    found = of_view(stands(reader)[0], reader.view)
    if found is not None:
        with amounts_in(found.budget.currency):
            return _card_of(found, period_name(found.budget, found.period.start))
    ahead, name = month(reader), period_name(_scope(reader), _scope(reader).period_at(_at(reader)).start)
    facts = ["No budget is set for just this. " + SET]
    if ahead.forecast is None:
        return _face(name, None, "after five whole days", None, facts)
    before = _month_before(ahead)
    change = fmt.change(ahead.forecast.p50_usd, before, unit="usd", better="lower") if before else None
    beside = (
        [html.B(f"{change.arrow} {change.text}", className=f"delta {change.tone}"), " vs last month"]
        if change
        else "no budget"
    )
    return _face(name, ahead.forecast, beside, None, [*forecast_facts(ahead.forecast), *facts])


def _card_of(one: Standing, name: str) -> Component:
    ahead, ratio = one.forecast, one.expected_ratio
    if ahead is None or ratio is None:
        return _face(name, None, f"{fmt.usd(one.actual)} of {fmt.usd(one.limit)} spent", bar(one), [*one.incomplete])
    beside = [html.B(share(ratio), className=f"delta {tone(one)}"), f" of {fmt.usd(one.limit)} budget"]
    facts = [
        f"{fmt.usd_exact(one.actual)} of {fmt.usd_exact(one.limit)} is spent. {last_words(one)}",
        *forecast_facts(ahead),
    ]
    missing = [f"Incomplete: {', '.join(one.incomplete)}."] if one.incomplete else []
    return _face(name, ahead, beside, bar(one), [*facts, *missing])


def _face(
    name: str, ahead: outlook.Forecast | None, beside: Any, under: Component | None, facts: Sequence[str]
) -> Component:
    spent = html.Small([fmt.usd(ahead.actual_usd), html.Br(), "so far"]) if ahead else None
    value = html.Strong(fmt.usd(ahead.p50_usd) if ahead else fmt.UNKNOWN, id="kpi-forecast",
                        title=fmt.usd_exact(ahead.p50_usd) if ahead else None)  # fmt: skip
    told = popover("i", [html.P(fact) for fact in facts], label="How the forecast is computed", className="how")
    return html.Section(
        [html.Div([html.H2(f"Forecast {name}"), told], className="kpi-head"),
         html.Div([value, spent], className="kpi-value"),
         html.Div(html.Span(beside), className="kpi-foot"), under],
        className="card kpi outlook",
    )  # fmt: skip


# ---- the panel of budgets


def budgets(reader: Reader) -> list[Any]:
    """Title, words, verdict, burn-down and list of the panel."""
    found, untold = stands(reader)
    unknown = [html.P(words, className="quiet") for words in untold]
    if not found:
        return ["Budgets", "" if untold else "none is set yet", None, NOTHING, html.Div(unknown or _none())]
    main = of_view(found, reader.view) or _widest(found)
    parts = sorted((one for one in found if one is not main), key=_least_left)
    with amounts_in(main.budget.currency):
        name = period_name(main.budget, main.period.start)
        words = [f"{main.budget.name} · {fmt.usd(main.actual)} of {fmt.usd(main.limit)} · ",
                 html.B(last_words(main, short=True), className=f"delta {verdict_tone(main)}")]  # fmt: skip
        figure = outlook_figures.burn_down(main)
    left = len(parts) - MOST
    rows = [_row(one, reader.view) for one in parts[:MOST]]
    body = [html.Ul(rows, className="limits"), _all(left)]
    if main.incomplete:
        body.append(html.P([html.B("Incomplete: "), ", ".join(main.incomplete), " and not in it"], className="quiet"))
    return [f"{name} budgets", words, _verdict(parts, main), figure, html.Div([*body, *unknown])]


def _all(left: int) -> Component:
    """The way to all budgets, of which so many are not listed."""
    face = ["and ", html.B(f"{left} more")] if left > 0 else "All budgets"
    return html.P(link(face, "/budgets", className="there", **data(carry="")), className="quiet")


def _least_left(one: Standing) -> tuple[bool, Decimal]:
    """Orders budgets: those of which nothing is left first, then by what will have been spent of them."""
    share = expected(one)
    return share is not None, -(share or Decimal(0))


def _none() -> Component:
    return html.Div(
        [html.P("With a budget this page says whether it will be kept, and when it runs out."), html.Pre(SET), _all(0)],
        className="unset",
    )


def _verdict(parts: Sequence[Standing], main: Standing) -> Component:
    every = [main, *parts]
    over = [one for one in every if one.state in {"over", "will_be_over"}]
    if not over:
        return pill("All will be kept" if all(one.state == "kept" for one in every) else "None over yet", "good")
    return pill(f"{len(over)} over", "bad")


def _row(one: Standing, view: View) -> Component:
    """A budget as a line: who, how much of it is and will be spent."""
    with amounts_in(one.budget.currency):
        words = (
            f"{one.budget.name}: {fmt.usd_exact(one.actual)} of {fmt.usd_exact(one.limit)} spent, "
            + (f"{fmt.usd(one.forecast.p50_usd)} expected. " if one.forecast else "")
            + last_words(one)
            + (f" Incomplete: {', '.join(one.incomplete)}." if one.incomplete else "")
        )
        face = [html.Span(one.budget.name, className="name"), bar(one),
                html.Span([html.B(share(expected(one)), className=f"delta {tone(one)}"),
                           f" of {fmt.usd(one.limit)}"])]  # fmt: skip
    href = _narrowed(one.budget, view) or f"/budgets?v={VERSION}&budget={one.budget.id}"
    return html.Li(link(face, href, title=words))


def _narrowed(budget: Budget, view: View) -> str | None:
    """Address of what a budget is about, where the page can be narrowed to just that."""
    kept = [one for one in budget.filters if not one.negated and len(one.values) == 1]
    if not kept or len(kept) != len(budget.filters) or {one.dimension for one in kept} - set(FILTERS):
        return None
    return view.toggled(**{one.dimension: one.values[0] for one in kept}).href()


def _widest(found: Sequence[Standing]) -> Standing:
    return min(found, key=lambda one: (len(one.budget.filters), one.budget.period != "month", -one.limit))


# ---- the chart, and days out of line


def coming(reader: Reader) -> tuple[Sequence[Day], date]:
    """The days to come that the chart shows, none where its period is over; and today."""
    scope, at = _scope(reader), _at(reader)
    today = at.astimezone(reader.window.zone).date()
    if reader.window.today is None:
        return (), today
    history = standings.looked_at(_frame(reader, scope), scope, at)
    until = max(scope.period_at(at).end.astimezone(reader.window.zone).date(), today + timedelta(days=AHEAD + 1))
    found = outlook.forecast(history.days, today, until, today)
    return (found.days[1:] if found else ()), today


def odd_days(reader: Reader) -> tuple[list[Anomaly], Decimal]:
    """Whole days of the period that are out of line, in all, by team and by model, and the least rise that matters."""
    window, place = reader.window, reader.window.zone
    since = window.day_after(window.days[0], -7 * outlook.WEEKS)
    histories: dict[tuple[str, str | None], list[Daily]] = {}
    for dimension in ("team", "model"):
        asked = question(
            reader.view, Period(since, window.period.end), ("spend_usd", "charges_usd"), (dimension,), "day"
        )
        frame = reader.warehouse.ask(reader.tenant, asked).frame
        histories |= _by_day(frame, dimension, place)
        if dimension == "team":
            histories["all", None] = _whole(histories)
    for dimension in ("team", "model"):
        for value in (IDLE, CHARGE):
            histories.pop((dimension, value), None)
    amounts = [one.spend_usd for one in histories["all", None] if one.spend_usd]
    floor = (median(amounts) * FLOOR).quantize(Decimal("0.01")) if amounts else Decimal(0)
    days = [day.astimezone(place).date() for day in window.days if day != window.today]
    return outlook.anomalies(histories, days, max(floor, Decimal("0.01"))), floor


def unusual(reader: Reader) -> list[Any]:
    """Words and list of the days out of line."""
    found, floor = odd_days(reader)
    rule = f"a fifth and {fmt.usd(floor)} over the same weekday of four weeks"
    if not found:
        return [f"none cost {rule}", html.P("Every day cost about what its weekday does.", className="quiet calm")]
    colour_of = {name: reader.colours(name) for name in ("team", "model")}
    worst = sorted(found, key=lambda one: (-one.impact_usd, one.dimension))
    rows = [_odd(one, colour_of.get(one.dimension, {}).get(one.value), reader) for one in worst[:MOST_ODD]]
    heads = ("Day", "Who", "Cost", "Usual", "Over by")
    table = html.Table([html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(rows)],
                       className="odd")  # fmt: skip
    left = len(worst) - MOST_ODD
    more = html.P(f"and {left} more" if left > 0 else "", className="quiet")
    return [f"at least {rule}", html.Div([html.Div(table, className="scroll"), more])]


def _odd(one: Anomaly, colour: str | None, reader: Reader) -> Component:
    name = "Everything" if one.dimension == "all" else charts.label(one.dimension, one.value)
    view = replace(reader.view, range=f"{one.day}..{one.day}")
    if one.dimension != "all":
        kept = dict(view.filters) | {one.dimension: (one.value,)}
        view = replace(view, filters=tuple(kept.items()))
    face = [dot(colour or charts.OTHER_COLOUR), html.Span(name, className="name")]
    by = "" if one.impact_ratio is None else f" ({fmt.percent(one.impact_ratio, 0)})"
    return html.Tr(
        [html.Td(date_words(one.day)),
         html.Th(link(face, view.href(), title=f"Show {name} on {date_words(one.day)}"), scope="row"),
         html.Td(fmt.usd(one.actual_usd)), html.Td(fmt.usd(one.expected_usd)),
         html.Td(html.Span(f"+{fmt.usd(one.impact_usd)}{by}", className="delta bad"))]
    )  # fmt: skip


# ---- what all of it is asked by


def _scope(reader: Reader) -> Budget:
    """What the page is narrowed to, as a budget of the month would say it."""
    view = reader.view
    return Budget(
        name="shown",
        amount=Decimal(1),
        filters=tuple(Filter(name, values) for name, values in view.filters),
        currency=fmt.presented().currency,
        basis=view.basis,
        time_zone=fmt.zone(),
        effective_from=FIRST,
    )


def _frame(reader: Reader, scope: Budget) -> pl.DataFrame:
    return reader.warehouse.ask(reader.tenant, standings.history_query(scope, _at(reader))).frame


def _at(reader: Reader) -> datetime:
    """The instant up to which calls are complete; they may be told of later than they were made."""
    return min(reader.fresh, reader.now)


def _by_day(frame: pl.DataFrame, dimension: str, place: Any) -> dict[tuple[str, str | None], list[Daily]]:
    """What days cost, without charges, by value."""
    found: dict[tuple[str, str | None], list[Daily]] = {}
    for row in frame.iter_rows(named=True):
        spend, charges = row["spend_usd"], row["charges_usd"] or Decimal(0)
        day = row["time"].astimezone(place).date()
        found.setdefault((dimension, row[dimension]), []).append(Daily(day, None if spend is None else spend - charges))
    return found


def _whole(histories: dict[tuple[str, str | None], list[Daily]]) -> list[Daily]:
    sums: dict[date, Decimal] = {}
    for series in histories.values():
        for one in series:
            sums[one.day] = sums.get(one.day, Decimal(0)) + (one.spend_usd or Decimal(0))
    return [Daily(day, usd) for day, usd in sums.items()]


def _month_before(ahead: Outlook) -> Decimal | None:
    """What the month before cost, charges apart, where all of it is known."""
    first = fmt.local(ahead.period.start).date()
    since = (first - timedelta(days=1)).replace(day=1)
    if not ahead.days or ahead.days[0].day > since:
        return None
    return sum((one.spend_usd or Decimal(0) for one in ahead.days if since <= one.day < first), Decimal(0))

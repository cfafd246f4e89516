"""Repricing what is stored: what it would change before it is done, how far it is, and what was done before."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from millicent.collector import history, repricing
from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, popover
from millicent.dashboard.pages.prices_forms import entry_field, group
from millicent.dashboard.pages.prices_history import shelf
from millicent.dashboard.pages.prices_place import Opened
from millicent.dashboard.pages.prices_search import header, opener, provider_words
from millicent.warehouse.query import Filter, Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.collector.repricing import DayDifference
    from millicent.dashboard.pages.prices_place import Place
    from millicent.warehouse.repricings import Repricing

DAY: Final = timedelta(days=1)
MOST_ROWS: Final = 40
MOST_RUNS: Final = 20
PULSE_MS: Final = 1000
FILTERED: Final = ("provider", "model")
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which calls to price again: whole UTC days, `[start, end)`, and only those that pass `filters`."""

    period: Period
    filters: tuple[Filter, ...] = ()

    @staticmethod
    def of(told: Mapping[str, str]) -> Plan:
        """What a form asks for; its last day is included.

        Raises:
            ValueError: naming what is no day, or no period.
        """
        start, last = _day("From", told.get("start", "")), _day("Through", told.get("through", ""))
        if start > last:
            raise ValueError(f"From {start:%Y-%m-%d} is after Through {last:%Y-%m-%d}: swap them")
        kept = tuple(Filter(name, (told[name],)) for name in FILTERED if told.get(name))
        return Plan(Period(start, last + DAY), kept)

    @property
    def told(self) -> dict[str, str]:
        """As a form holds it."""
        kept = {one.dimension: one.values[0] or "" for one in self.filters}
        return {"start": f"{self.period.start:%Y-%m-%d}", "through": f"{self.period.end - DAY:%Y-%m-%d}", **kept}


@dataclass(frozen=True, slots=True)
class Run:
    """A repricing as the list shows it; amounts are sums over its days so far, None while nothing is known."""

    id: int
    actor: str
    created_at: datetime
    period: Period
    filters: tuple[Filter, ...]
    version: str
    undo_of: int | None
    undone_by: int | None
    error: str | None
    finished: bool
    days_done: int
    days_total: int
    calls: int
    changed: int
    billed_before: Decimal | None
    billed_after: Decimal | None
    adjusted_days: int

    @staticmethod
    def of(run: Repricing, days: Sequence[Mapping[str, Any]], undone_by: int | None) -> Run:
        """A run of the control plane with its rows of `repricing_days`."""
        period = Period(run.start, run.end)
        return Run(
            id=run.id, actor=run.actor, created_at=run.created_at, period=period, filters=run.filters,
            version=run.version, undo_of=run.undo_of, undone_by=undone_by, error=run.error,
            finished=run.finished_at is not None, days_done=len({day["day"] for day in days}),
            days_total=sum(1 for _ in history.steps(period, DAY)), calls=sum(day["calls"] for day in days),
            changed=sum(day["changed"] for day in days),
            billed_before=_sum(day["billed_usd_before"] for day in days),
            billed_after=_sum(day["billed_usd_after"] for day in days),
            adjusted_days=len({day["day"] for day in days if day["adjusted"]}),
        )  # fmt: skip

    @property
    def share(self) -> Decimal:
        """How much of it is done, 0 to 1."""
        return Decimal(1) if self.finished else Decimal(self.days_done) / max(self.days_total, 1)

    @property
    def moved(self) -> Decimal | None:
        """What billed cost changed by; from or to unknown, all of it."""
        if self.billed_before is None and self.billed_after is None:
            return None
        return (self.billed_after or Decimal(0)) - (self.billed_before or Decimal(0))


@dataclass(frozen=True, slots=True)
class Sums:
    """Calls whose price changes and their amounts; None where nothing is known."""

    calls: int
    list_usd_before: Decimal | None
    list_usd_after: Decimal | None
    billed_usd_before: Decimal | None
    billed_usd_after: Decimal | None


def plan_drawer(plan: Plan, place: Place, why: Sequence[str], *, update: bool = False) -> Component:
    """The form of a repricing, with the difference it would make beneath.

    Args:
        plan: what the form begins with.
        place: what is shown; closing leads back there.
        why: words on where it comes from.
        update: compare with price data that waits, which cannot be applied before it is taken.
    """
    told = {**plan.told, **({"update": "1"} if update else {})}
    form = html.Form(
        [
            group("Calls to price again", [
                entry_field("start", "From (UTC)", told, shape="date", needed=True),
                entry_field("through", "Through, included", told, shape="date", needed=True),
                entry_field("provider", "Provider", told, hint="all"),
                entry_field("model", "Model", told, hint="all"),
            ]),
            *([dcc.Input(type="hidden", name="update", value="1")] if update else []),
            html.Div(html.Button("Show the difference", type="submit", className="button",
                                 **data(ask="prices-plan")), className="pager start"),
            dcc.Store(id="prices-plan", data=told),
        ],
        className="form",
    )  # fmt: skip
    body = html.Div(html.P("Comparing stored amounts with present prices…", className="quiet"), id="prices-difference",
                    className="difference", **aria(live="polite"))  # fmt: skip
    lead = [html.P(words, className="lead") for words in why]
    if update:
        return shelf("What the update would change", "of amounts that are stored already", [*lead, form, body], place)
    words = "a dry run first: nothing changes until you apply it"
    return shelf("Reprice stored calls", words, [*lead, form, body], place)


def difference(found: Iterable[DayDifference], plan: Plan, *, applies: bool) -> Component:
    """What applying `plan` would change, by team and model, largest first.

    Args:
        found: from `repricing.difference`.
        plan: what was asked.
        applies: whether it is offered to apply it.
    """
    every = list(found)
    if not every:
        return html.P("Nothing would change: every stored amount is what these prices say.", className="nothing")
    whole = _summed(every)
    closed = [one for one in every if one.closed]
    parts: list[Any] = [html.H3("What would change"), _moved(every, whole)]
    if closed:
        days = len({one.day for one in closed})
        told = f"{days} of these days {'is' if days == 1 else 'are'} closed. Their amounts stay, and "
        by = fmt.usd_change(_by(_summed(closed)) or Decimal(0))
        parts.append(html.P([told, html.B(by), " becomes an adjustment in the present hour."], className="banner"))
    if applies:
        yes = html.Button(f"Apply to {fmt.count(whole.calls)} calls", type="button", className="button primary",
                          **data(do="reprice", told=json.dumps(plan.told)))  # fmt: skip
        words = html.Small("Day by day, with both versions on record. It can be undone.")
        parts.append(html.Div([words, yes], className="pager"))
    return html.Div(parts)


def _moved(every: Sequence[DayDifference], whole: Sums) -> Component:
    groups: dict[tuple[str | None, str | None], list[DayDifference]] = defaultdict(list)
    for one in every:
        groups[one.team, one.model].append(one)
    rows = [(team, model, _summed(parts)) for (team, model), parts in groups.items()]
    rows.sort(key=lambda row: (-abs(_by(row[2]) or Decimal(0)), row[0] or "", row[1] or ""))
    body = [
        html.Tr([html.Th([html.Bdi(label("team", team)), html.Small(model or "Unknown model")], scope="row"),
                 *_amounts(sums)])
        for team, model, sums in rows[:MOST_ROWS]
    ]  # fmt: skip
    if len(rows) > len(body):
        rest = _summed(sums for _, _, sums in rows[len(body) :])
        body.append(html.Tr([html.Th(f"{len(rows) - MOST_ROWS} more", scope="row"), *_amounts(rest)]))
    heads = ("Team and model", "Calls", "Billed before", "After", "Difference")
    head = html.Thead(html.Tr([html.Th(head, scope="col") for head in heads]))
    foot = html.Tfoot(html.Tr([html.Th("Total", scope="row"), *_amounts(whole)]))
    return html.Table([head, html.Tbody(body), foot], className="figures dated moved")


def runs(found: Sequence[Run], place: Place, *, operates: bool) -> Component:
    """Past repricings and those under way, newest first."""
    if not found:
        return html.P("None yet. Stored amounts have never been changed.", className="nothing")
    heads = (("Asked for", ""), ("Calls of", "for"), ("Priced by", "version"), ("Calls changed", "number changed"),
             ("Billed cost", "number"), ("State", "state"))  # fmt: skip
    body = [_run_row(run, place, operates=operates) for run in found[:MOST_RUNS]]
    table = html.Table(
        [html.Thead(header(heads)), html.Tbody(body)], className="pricelist runs", **aria(labelledby="repricings-title")
    )
    return html.Div(table, className="scroll")


def run_drawer(run: Run, place: Place, *, operates: bool) -> Component:
    """One repricing; it follows its progress."""
    clock = dcc.Interval(id="prices-pulse", interval=PULSE_MS, disabled=run.finished)
    body = html.Div(run_body(run, operates=operates), id="prices-run", **aria(live="polite"))
    return shelf(_title(run), _calls_of(run), [body, clock, dcc.Store(id="prices-beat")], place)


def run_body(run: Run, *, operates: bool) -> list[Any]:
    """How far a repricing is and what it changed, and how to take it back."""
    costs = html.Dl(
        [
            html.Div([html.Dt("Calls changed"), html.Dd(fmt.count(run.changed))]),
            html.Div([html.Dt("Billed before"), html.Dd(fmt.usd(run.billed_before))]),
            html.Div([html.Dt("Billed after"), html.Dd(fmt.usd(run.billed_after))]),
        ],
        className="costs",
    )
    facts = [
        ("Asked for", f"{fmt.moment(run.created_at)} UTC by {run.actor}"),
        ("Price book", run.version),
        ("Difference", fmt.usd_change(run.moved) if run.moved is not None else None),
        ("Looked at", f"{fmt.count(run.calls)} calls that another version had priced"),
        ("Adjusted", f"{run.adjusted_days} closed days, as charges of their own" if run.adjusted_days else None),
    ]
    told = html.Dl([html.Div([html.Dt(name), html.Dd(fact)]) for name, fact in facts if fact], className="facts single")
    undo = _undo(run) if operates else None
    return [_progress(run), costs, told, *([html.Div(undo, className="pager start")] if undo else [])]


def _day(words: str, text: str) -> datetime:
    try:
        found = datetime.combine(date.fromisoformat(text), time(), tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{words} {text!r} is no day: write it as 2026-11-01") from None
    if not EARLIEST <= found <= datetime.now(UTC) + DAY:
        raise ValueError(f"{words} {text} is no day of stored calls: choose one from {EARLIEST:%Y} to today")
    return found


def _by(one: Sums) -> Decimal | None:
    """What billed cost would change by; from or to unknown, all of it."""
    if one.billed_usd_before is None and one.billed_usd_after is None:
        return None
    return (one.billed_usd_after or Decimal(0)) - (one.billed_usd_before or Decimal(0))


def _summed(found: Iterable[DayDifference | Sums]) -> Sums:
    every = list(found)
    amounts = [_sum(getattr(one, name) for one in every) for name in repricing.AMOUNTS]
    return Sums(sum(one.calls for one in every), *amounts)


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def _amounts(one: Sums) -> list[Component]:
    by = _by(one)
    told = f"list {fmt.usd_exact(one.list_usd_before)} before, {fmt.usd_exact(one.list_usd_after)} after"
    tone = "" if not by else "bad" if by > 0 else "good"
    return [
        html.Td(fmt.count(one.calls)),
        html.Td(fmt.usd(one.billed_usd_before), title=told),
        html.Td(fmt.usd(one.billed_usd_after), title=told),
        html.Td(fmt.usd_change(by) if by is not None else fmt.UNKNOWN, className=f"delta {tone}"),
    ]


def _title(run: Run) -> str:
    return f"Repricing {run.id}" if run.undo_of is None else f"Undoing of repricing {run.undo_of}"


def _calls_of(run: Run) -> str:
    """`1 – 30 Nov 2026, OpenAI, gpt-4o`."""
    kept = [
        ("not " if one.negated else "") + " or ".join(_named(one.dimension, value) for value in one.values)
        for one in run.filters
    ]
    return ", ".join([fmt.span(run.period.start, run.period.end), *kept])


def _named(dimension: str, value: str | None) -> str:
    return provider_words(value) if dimension == "provider" else label(dimension, value)


def _run_row(run: Run, place: Place, *, operates: bool) -> Component:
    face = [fmt.moment(run.created_at), html.Small(f"by {run.actor}"),
            html.Small(_calls_of(run), className="narrow")]  # fmt: skip
    moved = fmt.usd_change(run.moved) if run.moved is not None else fmt.UNKNOWN
    return html.Tr(
        [
            html.Th(opener(face, place, Opened.of("run", id=run.id)), scope="row", title=_title(run)),
            html.Td(html.Span(_calls_of(run), className="name"), className="for"),
            html.Td(run.version, className="version"),
            html.Td(fmt.count(run.changed), className="number changed"),
            html.Td(moved, className="number"),
            html.Td([_progress(run), _undo(run) if operates else None], className="state"),
        ]
    )


def _progress(run: Run) -> Component:
    """What has become of it; a bar while it is under way."""
    if run.error:
        return html.Span(["failed: ", run.error], className="status bad")
    if not run.finished:
        words = f"{run.days_done} of {run.days_total} days"
        bar = html.Div(html.I(style={"width": f"{run.share:.0%}"}), className="bar")
        bounds = aria(valuemin="0", valuemax=str(run.days_total), valuenow=str(run.days_done), label=words)
        return html.Div([bar, html.Span(words)], className="progress", role="progressbar", **bounds)
    lamp = html.I(className="lamp", **aria(hidden="true"))
    if run.undo_of is not None:
        return html.Span([lamp, f"undid {run.undo_of}"], className="status")
    if run.undone_by is not None:
        return html.Span(f"undone by {run.undone_by}", className="status muted")
    return html.Span([lamp, "done"], className="status")


def _undo(run: Run) -> Component | None:
    if not run.finished or run.error or run.undone_by is not None:
        return None
    told = "Every call that still has what this run gave it gets its former amounts back. That is on record as well."
    yes = html.Button("Undo it", type="button", className="button danger",
                      **data(do="undo", told=json.dumps({"id": run.id})))  # fmt: skip
    return popover(html.Span("Undo…", className="button small-text"), [html.P(told), yes], className="confirm")

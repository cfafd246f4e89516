"""How a budget stands, in words and as a bar, wherever a page tells of it; its amounts are in its own currency."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime

    from dash.development.base_component import Component

    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.outlook import Forecast
    from millicent.warehouse.standings import Standing

Tone = Literal["good", "warn", "bad", "plain"]

CLOSE: Final = Decimal("0.95")
"""Share of a budget from which on it is close."""
MOST_SHARE: Final = Decimal(10)
"""Share of a budget above which it is not told exactly."""
_WIDER: Final = Decimal("1.02")
_PERIODS: Final = {"day": "today", "week": "this week", "quarter": "this quarter", "fiscal_year": "this year"}


@contextmanager
def amounts_in(currency: str) -> Iterator[None]:
    """Write amounts in a budget's own currency for as long as the block lasts."""
    usual = fmt.presented()
    fmt.present(replace(usual, currency=currency))
    try:
        yield
    finally:
        fmt.present(usual)


def bar(one: Standing, *, pace: bool = False) -> Component:
    """What is spent, solid; what will be, hatched; the limit as a mark, and with `pace` an even pace as a thin one."""
    limit = max(one.limit, Decimal(0))
    whole = max(limit, one.actual, one.forecast.p50_usd if one.forecast else Decimal(0)) * _WIDER or Decimal(1)
    spent, expected = one.actual / whole, (one.forecast.p50_usd if one.forecast else one.actual) / whole
    places = {"--spent": f"{max(spent, 0):.1%}", "--expected": f"{max(expected, 0):.1%}",
              "--limit": f"{limit / whole:.1%}", "--pace": f"{limit * one.elapsed_ratio / whole:.1%}"}  # fmt: skip
    marks = [html.I(), html.I(className="pace")] if pace else html.I()
    return html.I(marks, className=f"limit {tone(one)}", style=places, **aria(hidden="true"))


def tone(one: Standing) -> Tone:
    """Red where it is or will be over, amber where that is close, else green."""
    if one.state in {"over", "will_be_over"}:
        return "bad"
    ratio = expected(one)
    return "warn" if one.state == "may_be_over" or (ratio is not None and ratio >= CLOSE) else "good"


def expected(one: Standing) -> Decimal | None:
    """What will have been spent of the limit, or while nothing is forecast what is; None where no limit is left."""
    return one.expected_ratio if one.expected_ratio is not None else one.ratio


def verdict_tone(one: Standing) -> Tone:
    """Green only where it will be kept; plain where that cannot be told."""
    return {"kept": "good", "may_be_over": "warn", "unknown": "plain"}.get(one.state, "bad")  # type: ignore[return-value]


def last_words(one: Standing, *, short: bool = False) -> str:
    """Whether it lasts."""
    when = date_words(one.run_out_date) if one.run_out_date else ""
    if short:
        return {"over": f"ran out {when}", "will_be_over": f"runs out {when}", "may_be_over": "may run out",
                "kept": "will be kept", "unknown": "too early to tell"}[one.state].strip()  # fmt: skip
    return {
        "over": f"It ran out on {when}." if when else "It ran out.",
        "will_be_over": f"It runs out on {when}." if when else "It runs out before the period ends.",
        "may_be_over": "It may run out before the period ends.", "kept": "It lasts for the period.",
        "unknown": "It is too early to tell whether it lasts.",
    }[one.state]  # fmt: skip


def share(ratio: Decimal | None) -> str:
    """A share of a limit: `98%`, `>999%` where more digits would say no more."""
    return ">999%" if ratio is not None and ratio >= MOST_SHARE else fmt.percent(ratio, 0)


def outcome(one: Standing) -> tuple[str, Tone]:
    """Whether it lasts, in two or three words, and their tone."""
    if one.state == "kept" and tone(one) == "warn":
        return "will just be kept", "warn"
    return last_words(one, short=True), verdict_tone(one)


def period_name(budget: Budget, start: datetime) -> str:
    """`November`, `this week`, `the last 30 days`: the present period of a budget, which begins then."""
    if budget.period == "month":
        return f"{start.astimezone(zone(budget.time_zone)):%B}"
    return _PERIODS.get(budget.period) or f"the last {budget.rolling_days} days"


def date_words(of: date) -> str:
    """`27 Nov`."""
    return f"{of.day} {of:%b}"


def forecast_facts(ahead: Forecast) -> list[str]:
    """How a forecast came about and how far it may be off."""
    told = [ahead.method]
    if ahead.p10_usd is not None and ahead.days:
        told.append(f"{fmt.usd(ahead.p10_usd)} to {fmt.usd(ahead.p90_usd)} in 8 of 10 cases.")
    error = ahead.error
    if error.mape is not None:
        days = "day" if error.days == 1 else f"{error.days} days"
        told.append(f"On {error.folds} earlier days it was off by {fmt.percent(error.mape)} of the next {days}.")
    if error.coverage is not None:
        told.append(f"{fmt.percent(error.coverage, 0)} of what came was within the band told before.")
    return [*told, "What a contract charges when the month is over is not in it yet."]

"""`millicent budgets`: what spend may come to, and how it stands, of a running instance."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from millicent.dashboard.rule_commands import instant
from millicent.dashboard.terminal import URL, AsJson, OperatorToken, Token, Url, ask, get, out, short, show

budgets = typer.Typer(no_args_is_help=True, help="What a team, a model or all of it may cost, and whether it will.")

STATES: Final = {
    "over": "over already",
    "will_be_over": "will be over",
    "may_be_over": "may be over",
    "kept": "will be kept",
    "unknown": "too early to tell",
}


@budgets.command("list")
def list_budgets(url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """Every budget that holds: what was spent of it, and what will have been."""
    answer = get(url, token, "budgets", {})
    show([_line(one) for one in answer["budgets"]], answer, as_json=as_json)


_Filter = Annotated[list[str] | None, typer.Option(help="team:search keeps, -team:search drops; repeats mean AND.")]
_Period = Annotated[str, typer.Option(help="day, week, month, quarter, fiscal_year or rolling.")]
_Days = Annotated[int | None, typer.Option(help="Of a rolling period: the last so many whole days.")]
_Currency = Annotated[str | None, typer.Option(help="USD, EUR…", show_default="the workspace's")]
_Basis = Annotated[str, typer.Option(help="list, billed, effective, usage or marginal.")]
_TimeZone = Annotated[str | None, typer.Option(help="IANA name.", show_default="the workspace's")]
_Rollover = Annotated[
    str, typer.Option(help="What a period leaves to the next: none, unspent, or balance (overspend too).")
]


@budgets.command("set")
def set_budget(
    name: Annotated[str, typer.Argument(help="Of a new budget, or of one to change.")],
    amount: Annotated[str, typer.Argument(help="What a whole period may cost, such as 27500.")],
    filter: _Filter = None,  # noqa: A002 - as everywhere
    period: _Period = "month",
    days: _Days = None,
    rollover: _Rollover = "none",
    enforcement: Annotated[
        str, typer.Option(help="What a guarded call is told at the limit: none, warn or block.")
    ] = "none",
    currency: _Currency = None,
    basis: _Basis = "effective",
    time_zone: _TimeZone = None,
    parent: Annotated[int | None, typer.Option(help="Id of the budget that it is a part of.")] = None,
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    note: Annotated[str, typer.Option(help="Why it is so much.")] = "",
    since: Annotated[datetime | None, typer.Option("--from", help="UTC; it holds from then on.", show_default="now")]
    = None,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Set a budget; one of that name that holds gets its next version, which says all of it anew."""
    told = {
        **_scope(filter, period, days, currency, basis, time_zone), "name": name, "amount": amount,
        "rollover": rollover, "enforcement": enforcement, "parent": parent, "owner": owner, "note": note,
        "effective_from": instant(since),
    }  # fmt: skip
    answer = ask("POST", url, token, "budgets", json=told)
    shown = ("id", "version", "name", "amount", "currency", "period", "effective_from")
    show([{key: answer[key] for key in shown}], answer, as_json=as_json)


@budgets.command("suggest")
def suggest_budget(
    filter: _Filter = None,  # noqa: A002 - as everywhere
    period: _Period = "month",
    days: _Days = None,
    currency: _Currency = None,
    basis: _Basis = "effective",
    time_zone: _TimeZone = None,
    more: Annotated[str, typer.Option(help="What is added to what was spent, as a share.")] = "0.1",
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """What a budget might be, from what was spent."""
    scope = _scope(filter, period, days, currency, basis, time_zone)
    answer = ask("POST", url, token, "budgets/suggest", json={"budget": scope, "more": more})
    if not as_json:
        amount, unit = answer["amount"], answer["currency"]
        out.print(_money(amount, unit) if amount else "no suggestion", answer["method"], highlight=False, markup=False)
    rows = [
        {"from": short(one["start"]), "to": short(one["end"]), "spent": _money(one["actual"], answer["currency"]),
         "incomplete": "; ".join(one["incomplete"]) or None}
        for one in answer["history"]
    ]  # fmt: skip
    show(rows, answer, as_json=as_json)


@budgets.command("simulate")
def simulate_budget(
    amount: Annotated[str, typer.Argument(help="What a whole period may cost, such as 27500.")],
    filter: _Filter = None,  # noqa: A002 - as everywhere
    period: _Period = "month",
    days: _Days = None,
    rollover: _Rollover = "none",
    currency: _Currency = None,
    basis: _Basis = "effective",
    time_zone: _TimeZone = None,
    rule: Annotated[
        list[str] | None, typer.Option(help="actual:0.8 or forecast:100%; the usual ones if left out.")
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="UTC.", show_default="183 days ago")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC.", show_default="now")] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """How a budget would have done, and what it would have told, had it held already; nothing is set."""
    told: dict[str, Any] = {
        "budget": {**_scope(filter, period, days, currency, basis, time_zone), "amount": amount, "rollover": rollover},
        "since": instant(since), "until": instant(until),
    }  # fmt: skip
    if rule is not None:
        named = [one.partition(":") for one in rule]
        told["rules"] = [{"kind": kind, "threshold": threshold} for kind, _, threshold in named]
    answer = ask("POST", url, token, "budgets/simulate", json=told)
    unit = answer["currency"]
    rows = [
        {"from": short(one["start"]), "to": short(one["end"]), "limit": _money(one["limit"], unit),
         "spent": _money(one["actual"], unit), "": "" if one["over"] else "so far", "runs out": one["run_out_date"],
         "tells": "; ".join(f"{fired['day']} {fired['kind']} {_percent(fired['threshold'])}" for fired in one["fired"])
         or None,
         "incomplete": "; ".join(one["incomplete"]) or None}
        for one in answer["periods"]
    ]  # fmt: skip
    show(rows, answer, as_json=as_json)


@budgets.command("show")
def show_budget(
    budget_id: Annotated[int, typer.Argument(help="As `millicent budgets list` prints it.")],
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """One budget: how it stands, and every version that there was."""
    answer = get(url, token, f"budgets/{budget_id}", {})
    if not as_json and answer["budget"]:
        show(_told(answer["budget"]), answer, as_json=False)
        out.print()
    rows = [
        {"version": one["version"], "amount": _money(one["amount"], one["currency"]), "period": one["period"],
         "from": short(one["effective_from"]), "ended": "yes" if one["ended"] else "no", "author": one["author"],
         "note": one["note"]}
        for one in answer["versions"]
    ]  # fmt: skip
    show(rows, answer, as_json=as_json)


@budgets.command("periods")
def show_periods(
    budget_id: Annotated[int, typer.Argument(help="As `millicent budgets list` prints it.")],
    since: Annotated[datetime | None, typer.Option(help="UTC.", show_default="183 days ago")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC.", show_default="now")] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """What each period of a budget came to, by the version that held when it ended."""
    answer = get(url, token, f"budgets/{budget_id}/periods", _given(since=instant(since), until=instant(until)))
    versions = get(url, token, f"budgets/{budget_id}", {})["versions"] if not as_json else []
    units = {one["version"]: one["currency"] for one in versions}
    rows = [
        {"from": short(one["start"]), "to": short(one["end"]), "version": one["version"],
         **{name: _money(one[of], units[one["version"]])
            for name, of in (("limit", "limit"), ("carried over", "carried"), ("spent", "actual"))},
         "incomplete": "; ".join(one["incomplete"]) or None}
        for one in answer["periods"] if not as_json
    ]  # fmt: skip
    show(rows, answer, as_json=as_json)


@budgets.command("end")
def end_budget(
    budget_id: Annotated[int, typer.Argument(help="As `millicent budgets list` prints it.")],
    url: Url = URL,
    token: OperatorToken = None,
) -> None:
    """End a budget from now on; its versions are kept."""
    gone = ask("DELETE", url, token, f"budgets/{budget_id}")
    out.print(f"budget {budget_id} ({gone['name']}) is ended", highlight=False, markup=False)


def _given(**told: str | None) -> dict[str, str]:
    return {name: text for name, text in told.items() if text is not None}


def _scope(
    filters: list[str] | None, period: str, days: int | None, currency: str | None, basis: str, time_zone: str | None
) -> dict[str, Any]:
    """What a budget would be about, and when, as the API takes it."""
    return {
        "filters": filters or [], "period": period, "rolling_days": days, "currency": currency, "basis": basis,
        "time_zone": time_zone,
    }  # fmt: skip


def _line(one: dict[str, Any]) -> dict[str, Any]:
    """A budget as one line of a table."""
    stands, currency, days = one["standing"], one["currency"], one["rolling_days"]
    forecast, failure, parts = stands["forecast"], stands["failure"], one["parts"]
    return {
        "id": one["id"], "name": one["name"], "of": "; ".join(one["filters"]) or "everything",
        "period": f"last {days} days" if days else one["period"],
        "limit": _money(one["amount"] if failure else stands["limit"], currency),
        "spent": None if failure else _share(stands["actual"], stands["ratio"], currency),
        "expected": _share(forecast["p50"], stands["expected_ratio"], currency) if forecast else None,
        "stands": "cannot be told" if failure else STATES[stands["state"]], "runs out": stands["run_out_date"],
        "parts": _added_up(parts, currency),
        "incomplete": failure or "; ".join(stands["incomplete"]) or None,
    }  # fmt: skip


def _added_up(parts: dict[str, Any], currency: str) -> str | None:
    """What the parts of a budget come to; None where it has none that can be added up."""
    if len(parts["budgets"]) == len(parts["apart"]):
        return None
    return _money(parts["amount"], currency) + (", too much" if parts["exceeds"] else "")


def _share(amount: str, ratio: str | None, currency: str) -> str:
    return f"{_money(amount, currency)} ({_percent(ratio)})" if ratio else _money(amount, currency)


def _told(one: dict[str, Any]) -> list[dict[str, Any]]:
    """A budget line by line."""
    line, stands = _line(one), one["standing"]
    forecast = stands["forecast"]
    if stands["carried"] not in {None, "0"}:
        line["carried over"] = _money(stands["carried"], one["currency"])
    if forecast and forecast["p10"]:
        low, high = (_money(forecast[bound], one["currency"]) for bound in ("p10", "p90"))
        line["in 8 of 10 cases"] = f"{low} to {high}"
    if forecast:
        line["how"] = forecast["method"]
    return [{"what": name, "value": value} for name, value in {**line, "owner": one["owner"] or None}.items()]


def _money(amount: str, currency: str) -> str:
    return f"{Decimal(amount):,.2f} {currency}"


def _percent(ratio: str) -> str:
    return f"{Decimal(ratio) * 100:.0f}%"

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


@budgets.command("set")
def set_budget(
    name: Annotated[str, typer.Argument(help="Of a new budget, or of one to change.")],
    amount: Annotated[str, typer.Argument(help="What a whole period may cost, such as 27500.")],
    filter: Annotated[  # noqa: A002 - as everywhere
        list[str] | None, typer.Option(help="team:search keeps, -team:search drops; repeats mean AND.")
    ] = None,
    period: Annotated[str, typer.Option(help="day, week, month, quarter, fiscal_year or rolling.")] = "month",
    days: Annotated[int | None, typer.Option(help="Of a rolling period: the last so many whole days.")] = None,
    rollover: Annotated[
        str, typer.Option(help="What a period leaves to the next: none, unspent, or balance (overspend too).")
    ] = "none",
    enforcement: Annotated[
        str, typer.Option(help="What a guarded call is told at the limit: none, warn or block.")
    ] = "none",
    currency: Annotated[str | None, typer.Option(help="USD, EUR…", show_default="the workspace's")] = None,
    basis: Annotated[str, typer.Option(help="list, billed, effective, usage or marginal.")] = "effective",
    time_zone: Annotated[str | None, typer.Option(help="IANA name.", show_default="the workspace's")] = None,
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
        "name": name, "amount": amount, "filters": filter or [], "period": period, "rolling_days": days,
        "rollover": rollover, "enforcement": enforcement, "currency": currency,
        "basis": basis, "time_zone": time_zone, "parent": parent, "owner": owner, "note": note,
        "effective_from": instant(since),
    }  # fmt: skip
    answer = ask("POST", url, token, "budgets", json=told)
    shown = ("id", "version", "name", "amount", "currency", "period", "effective_from")
    show([{key: answer[key] for key in shown}], answer, as_json=as_json)


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


@budgets.command("end")
def end_budget(
    budget_id: Annotated[int, typer.Argument(help="As `millicent budgets list` prints it.")],
    url: Url = URL,
    token: OperatorToken = None,
) -> None:
    """End a budget from now on; its versions are kept."""
    gone = ask("DELETE", url, token, f"budgets/{budget_id}")
    out.print(f"budget {budget_id} ({gone['name']}) is ended", highlight=False, markup=False)


def _line(one: dict[str, Any]) -> dict[str, Any]:
    """A budget as one line of a table."""
    stands, currency = one["standing"], one["currency"]
    forecast = stands["forecast"]
    return {
        "id": one["id"], "name": one["name"], "of": "; ".join(one["filters"]) or "everything",
        "period": one["period"], "limit": _money(stands["limit"], currency),
        "spent": f"{_money(stands['actual'], currency)} ({_percent(stands['ratio'])})",
        "expected": f"{_money(forecast['p50'], currency)} ({_percent(stands['expected_ratio'])})" if forecast else None,
        "stands": STATES[stands["state"]], "runs out": stands["run_out_date"],
        "incomplete": "; ".join(stands["incomplete"]) or None,
    }  # fmt: skip


def _told(one: dict[str, Any]) -> list[dict[str, Any]]:
    """A budget line by line."""
    line, forecast = _line(one), one["standing"]["forecast"]
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

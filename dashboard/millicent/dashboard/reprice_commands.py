"""`millicent reprice` and `millicent periods`: stored calls by the prices of today, except where a period is closed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from millicent.dashboard.rule_commands import To, days, instant
from millicent.dashboard.terminal import (
    URL,
    AsJson,
    Failed,
    OperatorToken,
    Token,
    Url,
    agreed,
    ask,
    err,
    get,
    progress,
    short,
    show,
    task,
)

reprice = typer.Typer(invoke_without_command=True, help="Price stored calls again by the price book as it is now.")
periods = typer.Typer(no_args_is_help=True, help="Closed periods: their amounts never change; corrections are charges.")

POLL_S: Final = 0.25
AMOUNTS: Final = ("list_usd_before", "list_usd_after", "billed_usd_before", "billed_usd_after")
Run = Annotated[int, typer.Argument(help="As `millicent reprice runs` prints it.")]


@reprice.callback()
def reprice_calls(
    context: typer.Context,
    start: Annotated[
        datetime | None, typer.Option("--from", help="UTC; the calls that began from then on.", show_default="required")
    ] = None,
    end: To = None,
    filter: Annotated[list[str] | None, typer.Option(help="model:gpt-5 keeps, -team:search drops.")] = None,  # noqa: A002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Price stored calls again by the price book as it is now: shows the difference by day, team and model, then asks.

    It goes day by day, each whole or not at all, and goes on by itself if it is interrupted. Days of a closed period
    keep their amounts; the difference becomes a charge.
    """
    if context.invoked_subcommand is not None:
        return
    if start is None:
        raise Failed("from when on? write --from 2026-11-01")
    until = end or datetime.now(UTC)
    answers = [ask("GET", url, token, "reprice", params={"start": since, "end": to, "filter": filter or []})
               for since, to in progress(days(start, until), "days looked at")]  # fmt: skip
    would = summed(answers, ("day", "team", "model"))
    if agreed(would, "differences", dry_run=dry_run, yes=yes, as_json=as_json, line=moved):
        params = {"start": instant(start), "end": instant(until), "filter": filter or []}
        run = followed(ask("POST", url, token, "reprice", params=params), url, token)
        show([_line(run)], run, as_json=as_json)


@reprice.command("runs")
def list_runs(url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """Every repricing and how far it is, newest first."""
    answer = get(url, token, "reprice/runs", {})
    show([_line(run) for run in answer["runs"]], answer, as_json=as_json)


@reprice.command("show")
def show_run(run_id: Run, url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """One repricing, day by day."""
    run = get(url, token, f"reprice/{run_id}", {})
    show([_line(run)] if not run["days"] else [_day(day) for day in run["days"]], run, as_json=as_json)


@reprice.command("undo")
def undo_run(
    run_id: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Put back what a repricing changed, where nothing has changed it since."""
    before = get(url, token, f"reprice/{run_id}", {})
    if not yes:
        show([_line(before)], before, as_json=False, to=err)
        typer.confirm(f"{before['changed']:,} calls go back to their amounts of before. Go on?", abort=True, err=True)
    run = followed(ask("POST", url, token, f"reprice/{run_id}/undo"), url, token)
    show([_line(run)], run, as_json=as_json)


@periods.command("list")
def list_periods(url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """Closed periods, oldest first."""
    answer = get(url, token, "periods", {})
    show([{**one, **{name: short(one[name]) for name in ("start", "end", "closed_at")}} for one in answer["periods"]],
         answer, as_json=as_json)  # fmt: skip


@periods.command("close")
def close_period(
    start: Annotated[datetime, typer.Option("--from", help="UTC day that it begins with.")],
    end: Annotated[datetime, typer.Option("--to", help="UTC day that it ends before: 2026-11-01 closes October.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Close a period for good: amounts in it never change again, and corrections become charges of today."""
    if not yes:
        typer.confirm(f"Close {start:%Y-%m-%d} up to {end:%Y-%m-%d}? It cannot be opened again.", abort=True, err=True)
    answer = ask("POST", url, token, "periods", json={"start": instant(start), "end": instant(end)})
    show([{**one, **{name: short(one[name]) for name in ("start", "end", "closed_at")}} for one in answer["periods"]],
         answer, as_json=as_json)  # fmt: skip


def followed(run: dict[str, Any], url: str, token: str | None) -> dict[str, Any]:
    """Wait for a run to end, with its days on a bar.

    Raises:
        Failed: it ended with an error; days before it are done.
    """
    with task("days priced", run["days_total"]) as advance:
        while run["state"] not in {"done", "failed"}:
            advance(run["days_done"])
            time.sleep(POLL_S)
            run = get(url, token, f"reprice/{run['id']}", {})
        advance(run["days_done"])
    if run["state"] == "failed":
        raise Failed(f"run {run['id']} ended after {run['days_done']} of {run['days_total']} days: {run['error']}")
    return run


def summed(answers: Iterable[dict[str, Any]], by: Sequence[str]) -> dict[str, Any]:
    """Answers of several days as one, with a difference for each value of `by`; amounts stay text."""
    total, sums = 0, dict[tuple[Any, ...], dict[str, Any]]()
    for answer in answers:
        total += answer["calls"]
        for one in answer["differences"]:
            key = tuple(one[name] for name in by)
            was = sums.get(key)
            amounts = {name: _sum(was[name], one[name]) if was else one[name] for name in AMOUNTS}
            calls = one["calls"] + (was["calls"] if was else 0)
            sums[key] = {**dict(zip(by, key, strict=True)), "calls": calls, **amounts}
    return {"calls": total, "differences": list(sums.values())}


def moved(one: dict[str, Any]) -> dict[str, Any]:
    """A difference as one line of a table: what it is of, calls, and old → new."""
    of = {name: value for name, value in one.items() if name not in AMOUNTS}
    return of | {cost: f"{one[f'{cost}_usd_before'] or '—'} → {one[f'{cost}_usd_after'] or '—'}"
                 for cost in ("list", "billed")}  # fmt: skip


def _line(run: dict[str, Any]) -> dict[str, Any]:
    """A run as one line of a table."""
    return {
        "run": run["id"], "state": run["state"], "from": short(run["start"]), "to": short(run["end"]),
        "filters": ", ".join(run["filters"]) or None, "undoes": run["undo_of"],
        "days": f"{run['days_done']} of {run['days_total']}", "calls": run["calls"], "changed": run["changed"],
        **{cost: f"{run[f'{cost}_usd_before'] or '—'} → {run[f'{cost}_usd_after'] or '—'}"
           for cost in ("list", "billed")},
        "by": run["actor"],
    }  # fmt: skip


def _day(day: dict[str, Any]) -> dict[str, Any]:
    """A day of a run as one line of a table."""
    told = {"day": short(day["day"]), "calls": day["calls"], "changed": day["changed"]}
    return moved({**told, **{name: day[name] for name in AMOUNTS}, "closed": "yes" if day["adjusted"] else "no"})


def _sum(one: str | None, other: str | None) -> str | None:
    known = [Decimal(amount) for amount in (one, other) if amount is not None]
    return f"{sum(known, Decimal(0)):f}" if known else None

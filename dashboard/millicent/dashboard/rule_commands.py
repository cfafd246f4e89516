"""`millicent rules`: attribution rules of a running instance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from millicent.dashboard.terminal import (
    URL,
    AsJson,
    Failed,
    OperatorToken,
    Token,
    Url,
    agreed,
    ask,
    get,
    out,
    progress,
    show,
)

rules = typer.Typer(no_args_is_help=True, help="Attribution rules: tags where telemetry does not tell them.")

DAY: Final = timedelta(days=1)
From = Annotated[datetime, typer.Option("--from", help="UTC; the calls that began from then on.")]
To = Annotated[datetime | None, typer.Option("--to", help="UTC; up to then, not included.", show_default="now")]


@rules.command("list")
def list_rules(url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """Every rule, by position."""
    answer = get(url, token, "rules", {})
    show([_line(rule) for rule in answer["rules"]], answer, as_json=as_json)


@rules.command("add")
def add_rule(
    conditions: Annotated[
        list[str],
        typer.Option("--if", help="service=checkout,cart or service~^check or team=null; all must hold (repeat)."),
    ],
    sets: Annotated[list[str], typer.Option("--set", help="team=Payments (repeat for other tags).")],
    override: Annotated[bool, typer.Option("--override", help="Also where telemetry tells the tag.")] = False,
    position: Annotated[int | None, typer.Option(min=1, help="Place among the rules.", show_default="last")] = None,
    since: Annotated[datetime | None, typer.Option(help="UTC; calls from then on.", show_default="always")] = None,
    until: Annotated[datetime | None, typer.Option(help="UTC; calls before then.", show_default="for ever")] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Add a rule; it holds for calls that come from now on, and for others once `millicent rules apply` has run."""
    told = {
        "when": [_condition(text) for text in conditions], "sets": dict(_pair(text) for text in sets),
        "override": override, "position": position, "effective_from": instant(since), "effective_to": instant(until),
        "note": note,
    }  # fmt: skip
    answer = ask("POST", url, token, "rules", json=told)
    show([_line(rule) for rule in answer["rules"]], answer, as_json=as_json)


@rules.command("remove")
def remove_rule(
    rule_id: Annotated[int, typer.Argument(help="As `millicent rules list` prints it.")],
    url: Url = URL,
    token: OperatorToken = None,
) -> None:
    """Take a rule away; calls that it tagged stay so until `millicent rules apply` has run."""
    ask("DELETE", url, token, f"rules/{rule_id}")
    out.print(f"rule {rule_id} is removed", highlight=False)


@rules.command("check")
def check_rules(start: From, end: To = None, url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """How many stored calls each rule holds for, and for how many it is the one that sets a tag; changes nothing."""
    answer = get(url, token, "rules/check", {"start": instant(start), "end": instant(end or datetime.now(UTC))})
    show(answer["rules"], answer, as_json=as_json)


@rules.command("apply")
def apply_rules(
    start: From,
    end: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would move.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Tag stored calls again by the rules as they are: shows what moves from team to team first, then asks."""
    periods = days(start, end or datetime.now(UTC))
    would = _each("GET", "days looked at", periods, url, token)
    if agreed(would, "moves", dry_run=dry_run, yes=yes, as_json=as_json):
        done = _each("POST", "days tagged", periods, url, token)
        show(done["moves"], done, as_json=as_json)


def _each(method: str, words: str, periods: Sequence[tuple[str, str]], url: str, token: str | None) -> dict[str, Any]:
    """Answers of every day as one."""
    total, sums = 0, dict[tuple[str | None, str | None], dict[str, Any]]()
    for start, end in progress(periods, words):
        answer = ask(method, url, token, "rules/changes", params={"start": start, "end": end})
        total += answer["calls"]
        for move in answer["moves"]:
            key = move["before"], move["after"]
            sums[key] = _sum(sums[key], move) if key in sums else move
    moves = sorted(sums.values(), key=lambda move: -Decimal(move["spend_usd"] or -1))
    return {"calls": total, "moves": moves}


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    known = [Decimal(move["spend_usd"]) for move in (one, other) if move["spend_usd"] is not None]
    spend = f"{sum(known):f}" if known else None
    return {**one, **{name: one[name] + other[name] for name in ("calls", "tokens")}, "spend_usd": spend}


def _condition(text: str) -> dict[str, Any]:
    """`field=a,b`, `field~expression` or `field=null`."""
    at = min((place for mark in "=~" if (place := text.find(mark)) > 0), default=0)
    field, mark, value = text[:at], text[at : at + 1], text[at + 1 :]
    if not at or not value:
        raise Failed(f"--if {text!r} is not a condition: write service=checkout, service~^check or team=null")
    if mark == "~":
        return {"field": field, "matches": value}
    return {"field": field, "absent": True} if value == "null" else {"field": field, "is": value.split(",")}


def _pair(text: str) -> tuple[str, str]:
    tag, mark, value = text.partition("=")
    if not mark:
        raise Failed(f"--set {text!r} is not tag=value: write team=Payments")
    return tag, value


def _line(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule as one line of a table."""
    return {
        "id": rule["id"], "position": rule["position"], "if": "; ".join(map(_words, rule["when"])),
        "set": ", ".join(f"{tag}={value}" for tag, value in rule["sets"].items()),
        "override": "yes" if rule["override"] else "no", "from": rule["effective_from"], "to": rule["effective_to"],
        "author": rule["author"], "note": rule["note"],
    }  # fmt: skip


def _words(condition: dict[str, Any]) -> str:
    if "absent" in condition:
        return f"{condition['field']}=null"
    if "matches" in condition:
        return f"{condition['field']}~{condition['matches']}"
    return f"{condition['field']}={','.join(condition['is'])}"


def days(start: datetime, end: datetime) -> list[tuple[str, str]]:
    """The UTC days between two instants, cut at both, as the API takes them; UTC is meant where no zone is told.

    Raises:
        Failed: `start` is not before `end`.
    """
    since, until = _utc(start), _utc(end)
    found = []
    while since < until:
        midnight = since.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
        found.append((_text(since), _text(min(midnight, until))))
        since = midnight
    if not found:
        raise Failed(f"--from {start.isoformat()} is not before --to: swap them")
    return found


def instant(given: datetime | None) -> str | None:
    """An instant as the API takes it; UTC is meant where no zone is told."""
    return _text(_utc(given)) if given else None


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _utc(given: datetime) -> datetime:
    return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)

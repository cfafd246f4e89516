"""`millicent webhooks`: where alerts are sent, what was sent, and sending it again, of a running instance."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from millicent.dashboard.rule_commands import instant
from millicent.dashboard.terminal import (
    URL,
    AsJson,
    Failed,
    OperatorToken,
    Token,
    Url,
    ask,
    get,
    out,
    short,
    show,
)  # fmt: skip

webhooks = typer.Typer(no_args_is_help=True, help="Where alerts are sent, and whether they arrive.")

Named = Annotated[str, typer.Argument(help="Name, as `millicent webhooks list` prints it, or id.")]
Secret = Annotated[
    str | None,
    typer.Option(
        envvar="MILLICENT_WEBHOOK_SECRET",
        help="PagerDuty's routing key, a bearer token or user:password; that of a webhook is made if left out.",
    ),
]
WAIT_S = 25


@webhooks.command("list")
def list_endpoints(url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """Every endpoint and how it is doing."""
    answer = get(url, token, "webhooks", {})
    rows = [
        {"name": one["name"], "kind": one["kind"], "address": one["shown"], "state": one["state"],
         "since": short(one["failing_since"] or one["last_success_at"]), "waiting": one["pending"],
         "given up": one["dead"], "why": one["reason"] or one["last_error"]}
        for one in answer["endpoints"]
    ]  # fmt: skip
    show(rows, answer, as_json=as_json)


@webhooks.command("set")
def set_endpoint(
    name: Annotated[str, typer.Argument(help="Of a new endpoint, or of one to change.")],
    address: Annotated[
        str, typer.Argument(envvar="MILLICENT_WEBHOOK_ADDRESS", help="Where events are sent, https://… or smtps://….")
    ],
    kind: Annotated[str, typer.Option(help="webhook, slack, teams, pagerduty, alertmanager or smtp.")] = "webhook",
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Of events that it wants; repeat for more.", show_default="all")
    ] = None,
    secret: Secret = None,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Set an endpoint, or change the one of that name; a secret that is made is printed once."""
    told = {"name": name, "address": address, "kind": kind, "types": type_ or [], "secret": secret}
    _told(ask("POST", url, token, "webhooks", json=told), as_json=as_json)


@webhooks.command("test")
def try_out(name: Named, url: Url = URL, token: OperatorToken = None, as_json: AsJson = False) -> None:
    """Send an endpoint a test, and say what it answered."""
    path = f"webhooks/{_id(url, token, name)}/test"
    answer = ask("POST", url, token, path, params={"wait": WAIT_S})
    show(_attempts(answer), answer, as_json=as_json)
    if answer["state"] != "delivered":
        raise Failed(f"the test has not arrived at {name}; it is tried again, see `millicent webhooks deliveries`")


@webhooks.command("rotate")
def rotate_secret(
    name: Named, secret: Secret = None, url: Url = URL, token: OperatorToken = None, as_json: AsJson = False
) -> None:
    """Give an endpoint another secret; the old one of a webhook signs for 24 hours more."""
    path = f"webhooks/{_id(url, token, name)}/rotate"
    _told(ask("POST", url, token, path, json={"secret": secret}), as_json=as_json)


@webhooks.command("enable")
def enable_endpoint(name: Named, url: Url = URL, token: OperatorToken = None) -> None:
    """Send to an endpoint again; what waited is sent at once."""
    found = ask("POST", url, token, f"webhooks/{_id(url, token, name)}/enable")
    out.print(f"endpoint {found['name']} is enabled", highlight=False, markup=False)


@webhooks.command("disable")
def disable_endpoint(
    name: Named,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever wonders.")] = None,
    url: Url = URL,
    token: OperatorToken = None,
) -> None:
    """Send nothing more to an endpoint; what is not delivered yet waits."""
    found = ask("POST", url, token, f"webhooks/{_id(url, token, name)}/disable", json={"reason": reason})
    out.print(f"endpoint {found['name']} is disabled", highlight=False, markup=False)


@webhooks.command("end")
def end_endpoint(name: Named, url: Url = URL, token: OperatorToken = None) -> None:
    """Take an endpoint away with its secrets; the log of what was sent is kept."""
    gone = ask("DELETE", url, token, f"webhooks/{_id(url, token, name)}")
    out.print(f"endpoint {gone['name']} is ended", highlight=False, markup=False)


@webhooks.command("deliveries")
def list_deliveries(
    name: Annotated[str | None, typer.Argument(help="Of one endpoint, by name or id.", show_default="all")] = None,
    state: Annotated[str | None, typer.Option(help="pending, delivered or dead.", show_default="all")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """What was sent, newest first."""
    path = f"webhooks/{_id(url, token, name)}/deliveries" if name else "webhooks/deliveries"
    asked = {"state": state, "limit": limit}
    answer = get(url, token, path, {key: value for key, value in asked.items() if value is not None})
    rows = [
        {"delivery": one["id"], "happened": short(one["occurred_at"]), "type": one["type"],
         "endpoint": one["endpoint_name"], "state": one["state"], "attempts": len(one["attempts"]),
         "last": _outcome(one["attempts"][-1]) if one["attempts"] else None, "next": short(one["next_at"])}
        for one in answer["deliveries"]
    ]  # fmt: skip
    show(rows, answer, as_json=as_json)


@webhooks.command("replay")
def replay(
    what: Annotated[str, typer.Argument(help="Number of a delivery, or an endpoint with --from.")],
    since: Annotated[
        datetime | None, typer.Option("--from", help="UTC; send an endpoint again what happened from then on.")
    ] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="UTC; up to then.", show_default="now")] = None,
    everything: Annotated[bool, typer.Option("--all", help="What was delivered, too.")] = False,
    url: Url = URL,
    token: OperatorToken = None,
) -> None:
    """Send again, with the same event ids: one delivery, or what an endpoint missed in a period."""
    if since is None:
        if not what.isdecimal():
            raise Failed(f"{what!r} is no number of a delivery: write one, or the endpoint with --from 2026-11-23")
        done = ask("POST", url, token, f"webhooks/deliveries/{what}/replay")
        out.print(f"delivery {done['id']} to {done['endpoint_name']} is due now", highlight=False, markup=False)
        return
    asked = {"start": instant(since), "end": instant(until), "delivered": everything}
    path = f"webhooks/{_id(url, token, what)}/replay"
    done = ask("POST", url, token, path, params={key: value for key, value in asked.items() if value is not None})
    out.print(f"{done['deliveries']} deliveries to {what} are due now", highlight=False, markup=False)


def _id(url: str, token: str | None, name: str) -> str:
    """Id of the endpoint of a name or id."""
    found = get(url, token, "webhooks", {})["endpoints"]
    for one in found:
        if name in {one["id"], one["name"]}:
            return str(one["id"])
    known = ", ".join(one["name"] for one in found) or "none yet, see `millicent webhooks set`"
    raise Failed(f"there is no endpoint {name!r}: write one of {known}")


def _told(answer: dict[str, Any], *, as_json: bool) -> None:
    shown = ("id", "name", "kind", "shown", "enabled")
    show([{key: answer[key] for key in shown}], answer, as_json=as_json)
    if answer["secret"] and not as_json:
        out.print(f"\nSecret  {answer['secret']}\n\nIt is not shown again.", highlight=False, soft_wrap=True)


def _attempts(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"at": one["at"], "outcome": _outcome(one), "took": f"{one['took_ms']} ms", "answer": one["answer"]}
        for one in answer["attempts"]
    ]


def _outcome(attempt: dict[str, Any]) -> str:
    """What came of an attempt."""
    told = [str(attempt["status"])] if attempt["status"] is not None else []
    return ": ".join([*told, *([attempt["error"]] if attempt["error"] else [])])

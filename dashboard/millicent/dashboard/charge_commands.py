"""`millicent charges`: amounts that belong to no call."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import typer

from millicent.dashboard.rule_commands import To, instant
from millicent.dashboard.terminal import URL, AsJson, Token, Url, get, short, show
from millicent.warehouse.tables import CHARGED_TO

_AMOUNTS: Final = ("list_usd", "billed_usd", "hardware_usd", "idle_usd")


def list_charges(
    start: Annotated[
        datetime | None,
        typer.Option("--from", help="UTC; charged from then on.", show_default="92 days before the end"),
    ] = None,
    end: To = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="adjustment, fee, commitment, volume or credit (repeat).")
    ] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Amounts that belong to no call, newest first: fees, discounts, credits, and adjustments of closed periods."""
    asked = {"start": instant(start), "end": instant(end), "type": types or None}
    answer = get(url, token, "charges", {name: value for name, value in asked.items() if value is not None})
    amounts = [name for name in _AMOUNTS if any(_amount(one, name) for one in answer["charges"])]
    show([_line(one, amounts) for one in answer["charges"]], answer, as_json=as_json)


def _line(one: dict[str, Any], amounts: list[str]) -> dict[str, Any]:
    known = (f"{name} {one[name]}" for name in CHARGED_TO if one[name] is not None)
    return {
        "charged": short(one["charged_at"]), "type": one["type"], "name": one["name"], "of": ", ".join(known) or None,
        **{name: _amount(one, name) for name in amounts}, "why": one["why"],
    }  # fmt: skip


def _amount(one: dict[str, Any], name: str) -> str | None:
    return None if one[name] in {None, "0"} else one[name]

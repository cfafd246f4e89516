"""Notice of hardware that serves calls and that nobody declared: what is known of it, and how it is declared."""

from __future__ import annotations

import shlex
from datetime import UTC
from typing import TYPE_CHECKING, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, icon
from millicent.dashboard.pages.accelerators_homes import hardware_label
from millicent.dashboard.pages.declaring import button
from millicent.dashboard.pages.declaring_form import known_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.warehouse.discovered import Discovered

MOST: Final = 6
TOLD: Final = ("model", "accelerator", "engine", "precision", "region", "environment")
NEEDED: Final = {"model": "MODEL", "accelerator": "ACCELERATOR"}
"""What a declaration cannot be without, and what stands for it where calls do not tell it."""


def notice(found: Sequence[Discovered], *, operates: bool = False) -> Component | None:
    """What serves calls and is not declared, most tokens first; nothing where all is declared.

    Args:
        found: what is not declared.
        operates: whether whoever looks may declare it here.
    """
    if not found:
        return None
    calls, tokens = sum(one.calls for one in found), sum(one.tokens or 0 for one in found)
    names = len(found)
    title = html.B(f"{names} {'deployment is' if names == 1 else 'deployments are'} not declared. ")
    words = (
        f"{_calls(calls)} with {fmt.tokens(tokens)} tokens ran on own hardware whose cost nobody told: it is "
        "unknown, and in no sum here."
    )
    items = [_item(one, operates=operates) for one in found[:MOST]]
    left = len(found) - len(items)
    more = html.P(f"and {left} more, at /api/v1/deployments under discovered" if left else "", className="quiet")
    summary = html.Summary([icon("alert"), html.Span([title, words]), html.Span("How to declare", className="button")])
    return html.Details([summary, html.Ul(items), more], className="card undeclared")


def command(one: Discovered) -> str:
    """The command that declares it; what has to be found out is in capitals."""
    told = {name: getattr(one, name) for name in TOLD}
    words = ["millicent", "deployments", "declare", one.deployment or "NAME"]
    for name, value in told.items():
        if (given := value or NEEDED.get(name)) is not None:
            words += [f"--{name}", given]
    words += ["--count", str(one.accelerator_count or "COUNT"), "--profile", "kind=rented"]
    words += ["--profile", "usd_per_hour=USD"]
    if one.deployment is None and one.endpoint_host:
        words += ["--endpoint", one.endpoint_host]
    since = one.first_at.replace(tzinfo=UTC, minute=0, second=0, microsecond=0)
    return shlex.join([*words, "--since", f"{since:%Y-%m-%dT%H:%M:%S}"])


def _item(one: Discovered, *, operates: bool) -> Component:
    name = one.deployment or one.endpoint_host or "No name, no host"
    known = [hardware_label(part, value) for part in TOLD[:4] if (value := getattr(one, part))]
    if one.accelerator and one.accelerator_count:
        at = 1 if one.model else 0
        known[at] = f"{one.accelerator_count} × {known[at]}"
    served = f"{_calls(one.calls)}, {fmt.tokens(one.tokens)} tokens"
    text = command(one)
    copy = html.Button([icon("copy"), html.Span("Copy")], className="button copy", type="button",
                       **data(action="copy", text=text), **aria(label="Copy the command"))  # fmt: skip
    told: Component = html.P([html.B(name), f" {' · '.join([*known, served])}"])
    if operates:
        words = ["Declare", html.Span(f" {name}", className="unseen")]
        told = html.Div([told, button(words, **known_of(one))], className="one")
    return html.Li([told, html.P("To be found out: " + "; ".join(one.missing)), html.Div([html.Code(text), copy])])


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{fmt.count(number)} calls"

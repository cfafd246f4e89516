"""The form that adds an endpoint: what each kind asks for, and the endpoint that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from dash import dcc, html

from millicent.dashboard.components import aria, data, icon
from millicent.dashboard.pages.alerts_parts import SMALL, button, opener, select
from millicent.dashboard.pages.prices_forms import entry_field, group
from millicent.warehouse.endpoint_forms import PAGERDUTY
from millicent.warehouse.endpoints import TEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_forms import Told

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "webhook": (
        "Webhook",
        "A signed request to an address of yours, as Standard Webhooks has it. Its secret is made for you, shown once.",
    ),
    "slack": ("Slack", "A message in a channel, with a way to the alert. Make an incoming webhook in Slack."),
    "teams": (
        "Teams",
        "A card in a channel. In Teams make a workflow that posts to a channel when a webhook request is received.",
    ),
    "pagerduty": (
        "PagerDuty",
        "An incident that opens and closes with its alert. Add an integration of the Events API v2 to a service.",
    ),
    "alertmanager": ("Alertmanager", "An alert in your own Alertmanager, with its routes and silences."),
    "smtp": ("E-mail", "A mail to one or more people, by your own mail server."),
}
"""Kinds of endpoints, what they are called, and what they are sent."""
ADDRESSES: Final = {
    "webhook": ("Address", "https://ops.example.com/millicent"),
    "slack": ("Webhook URL", "https://hooks.slack.com/services/…"),
    "teams": ("Workflow URL", "https://….logic.azure.com/workflows/…"),
    "pagerduty": ("Address", "empty: events.pagerduty.com"),
    "alertmanager": ("Address", "https://alertmanager.example.com/api/v2/alerts"),
}
SECRETS: Final = {"pagerduty": ("routing_key",), "alertmanager": ("token",), "smtp": ("user", "password")}
"""What a form asks for that lets us in; joined by a colon."""
FAMILIES: Final = {
    "budget": "Budgets: thresholds, forecasts, burn rate", "cost.anomaly": "Unusual days",
    "unit_cost": "Cost per 1M tokens", "data.freshness": "No new data", "pricing": "Calls without a price",
    "endpoint": "Endpoints that are given up on",
}  # fmt: skip
"""What the types of events begin with that belong together, in words."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An endpoint as a form tells it."""

    name: str
    kind: str
    address: str = field(repr=False)
    secret: str | None = field(repr=False)
    families: tuple[str, ...]


def endpoint_form(told: Told) -> list[Component]:
    """The form for one kind of endpoint, and the way to the other kinds."""
    kind = told.get("kind", "webhook") if told.get("kind") in KINDS else "webhook"
    kinds = [
        html.Li(opener(title, "add-endpoint", f"{SMALL} primary" if key == kind else SMALL, kind=key))
        for key, (title, _) in KINDS.items()
    ]  # fmt: skip
    form = html.Form(
        [
            dcc.Input(type="hidden", name="kind", value=kind),
            group("Called", [entry_field("name", "Name", told, hint="platform on call", needed=True)], "one"),
            *_where(kind, told),
            html.Fieldset(
                [html.Legend("Tells of"),
                 dcc.Checklist(id="endpoint-families", options=[{"value": key, "label": words}
                                                                for key, words in FAMILIES.items()],
                               value=list(FAMILIES), className="ticks")],
                className="one",
            ),
            html.Div([html.Small("Addresses and secrets are stored sealed."),
                      button("Add the endpoint", "add-endpoint", submit=True, className="button primary")],
                     className="pager"),
        ],
        className="form", key=kind,
    )  # fmt: skip
    return [html.Ul(kinds, className="kinds"), html.P(KINDS[kind][1], className="lead"), form]


def _where(kind: str, told: Told) -> Sequence[Component]:
    if kind == "smtp":
        return [
            group("Mail server", [
                entry_field("server", "Server", told, hint="mail.example.com", needed=True),
                select("security", "Encrypted", {"smtps": "from the start (465)", "smtp": "by STARTTLS (587)"}),
                entry_field("user", "User", told, hint="if it asks for one"),
                entry_field("password", "Password", told, shape="password"),
            ]),
            group("Mail", [
                entry_field("from", "From", told, hint="millicent@example.com", needed=True),
                entry_field("to", "To", told, hint="ana@example.com, finance@example.com", needed=True),
            ]),
        ]  # fmt: skip
    words, hint = ADDRESSES[kind]
    fields = [entry_field("address", words, told, hint=hint, needed=kind != "pagerduty")]
    if kind == "pagerduty":
        fields.insert(0, entry_field("routing_key", "Integration key", told, hint="32 letters and digits", needed=True))
    if kind == "alertmanager":
        fields.append(entry_field("token", "Bearer token", told, shape="password", hint="if it asks for one"))
    return [group("Where", fields, "one")]


def asked_of(told: Told) -> Asked:
    """The endpoint that a form holds.

    Raises:
        ValueError: naming what is missing.
    """
    kind = told.get("kind", "")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown: write {', '.join(KINDS)}")
    name = told.get("name", "").strip()
    if not name:
        raise ValueError("The name is missing: write what it is called, such as platform on call")
    needed = {"smtp": ("server", "from", "to"), "pagerduty": ("routing_key",)}.get(kind, ("address",))
    for one in needed:
        if not told.get(one, "").strip():
            raise ValueError(f"{_LABELS.get(one, 'The address')} is missing: write it as the field shows")
    families = tuple(one for one in told.get("endpoint-families", "").split("\n") if one in FAMILIES)
    if not families:
        raise ValueError("It would be told of nothing: tick at least one line under “Tells of”")
    lets_in = [told[one].strip() for one in SECRETS.get(kind, ()) if told.get(one, "").strip()]
    return Asked(name, kind, _address(told, kind) or PAGERDUTY, ":".join(lets_in) or None, families)


_LABELS: Final = {"server": "The mail server", "from": "The sender", "to": "Who gets it",
                  "routing_key": "The integration key"}  # fmt: skip


def _address(told: Told, kind: str) -> str:
    if kind != "smtp":
        return told.get("address", "").strip()
    scheme = "smtp" if told.get("security") == "smtp" else "smtps"
    to = ",".join(one for one in told.get("to", "").replace(";", ",").replace(" ", "").split(",") if one)
    who = urlencode({"from": told.get("from", "").strip(), "to": to}, quote_via=quote, safe="@,")
    return f"{scheme}://{told.get('server', '').strip()}?{who}"


def types_of(families: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The types of events of families; none where that is every one there is, those of tomorrow too.

    Args:
        families: of `FAMILIES`.
        known: every type of event.
    """
    if set(families) == set(FAMILIES):
        return ()
    heads = tuple(f"{family}." for family in families)
    return tuple(one for one in known if one.startswith(heads) and one != TEST)


def families_of(types: Sequence[str]) -> str:
    """What an endpoint is told of, in words."""
    if not types:
        return "everything"
    found = [words[0].lower() + words[1:].partition(":")[0] for family, words in FAMILIES.items()
             if any(one.startswith(f"{family}.") for one in types)]  # fmt: skip
    return ", ".join(found) or f"{len(types)} kinds of events"


def secret(name: str, made: str) -> Component:
    """A secret that is shown once, with a button that copies it, and one that takes it away."""
    copy = html.Button([icon("copy"), html.Span("Copy")], type="button", className="button",
                       **data(action="copy", text=made), **aria(label="Copy the secret"))  # fmt: skip
    return html.Section(
        [
            html.Div([html.H2(["The secret of ", html.Bdi(name)]),
                      html.P("Keep it where the receiver reads it: it is shown this once, and stored sealed.")]),
            html.Code(made, id="secret-text"),
            html.Div([copy, button("I have kept it", "kept", className="button primary")], className="pager"),
        ],
        className="card panel secret", role="alert", **aria(label=f"The secret of {name}"),
    )  # fmt: skip

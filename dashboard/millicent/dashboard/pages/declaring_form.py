"""The form that declares a deployment: its fields, what it begins with, and the declaration that it holds.

A field that is empty was not said: the catalog or a default holds, never 0. What is typed is read as JSON and TOML are,
by `deployment_reading`.
"""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import quote, urlencode

from dash import dcc, html

from millicent.dashboard import deployment_reading
from millicent.dashboard.components import aria, data
from millicent.dashboard.pages.prices_forms import entry_field, group
from millicent.dashboard.state import pairs_of
from millicent.pricing import catalog
from millicent.pricing.profiles import PRESETS, Tier
from millicent.warehouse.deployments import BadDeploymentsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_forms import Told
    from millicent.pricing.catalog.rows import Row
    from millicent.warehouse.deployments import Deployment
    from millicent.warehouse.discovered import Discovered

OPENS: Final = "declare"
"""What the address opens, with what the form begins with."""
KINDS: Final = {
    "rented": "Rented: a price per accelerator and hour", "owned": "Owned: bought, hosted and powered",
    "reserved": "Reserved: paid for a term, used or not", "spot": "Spot: a price that moves",
    "preset": "Preset: a published survey's all-in price",
}  # fmt: skip
PRESET_NAMES: Final = {"": "The latest, ix-2026-07", **{name: f"{name}, {one.held}" for name, one in PRESETS.items()},
                       "dated": "dated: the one that held in each hour"}  # fmt: skip
TEXTS: Final = ("name", "model", "accelerator", "engine", "precision", "region", "environment", "pool", "owner")
COUNTS: Final = {"count": "accelerator_count", "prefill": "prefill_count", "decode": "decode_count"}
LISTS: Final = ("endpoints", "metrics", "dcgm")
BOUNDS: Final = {"effective_from": ("day", "hour"), "effective_to": ("until", "until_hour")}
SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "rented": ("usd_per_hour", "includes_power"),
    "owned": ("capex_usd", "life_years", "cost_of_capital", "residual_usd", "hosting_usd_per_kw_month",
              "hosting_includes_power"),
    "reserved": ("contract", "usd_per_hour", "starts", "months", "accelerators", "includes_power"),
    "spot": ("prices", "includes_power"),
    "preset": ("name", "tier"),
}  # fmt: skip
LABELS: Final = {
    "name": "Name", "model": "Model", "accelerator": "Accelerator", "accelerator_count": "Count", "region": "Region",
    "engine": "Engine", "precision": "Precision", "environment": "Environment", "owner": "Owner team", "pool": "Pool",
    "effective_from": "From", "effective_to": "Until", "endpoints": "Endpoints", "metrics": "Engine metrics",
    "dcgm": "DCGM exporters", "prefill_count": "Prefill", "decode_count": "Decode",
    "usd_per_hour": "USD per accelerator-hour", "capex_usd": "Price, USD each", "life_years": "Life, years",
    "cost_of_capital": "Cost of capital", "residual_usd": "Residual, USD each", "contract": "Contract",
    "hosting_usd_per_kw_month": "Hosting, USD per kW-month", "starts": "Starts", "months": "Months",
    "accelerators": "Accelerators", "prices": "Prices", "tariff_usd_per_kwh": "Electricity, USD per kWh",
}  # fmt: skip
"""How the form calls what a declaration says."""
PLACEHOLDERS: Final = {
    "usd_per_hour": "2.20", "capex_usd": "catalog", "life_years": "4", "cost_of_capital": "0.08", "residual_usd": "0",
    "hosting_usd_per_kw_month": "110", "contract": "H200 2026", "months": "12", "accelerators": "8",
}  # fmt: skip
_MEMBER: Final = re.compile(rf"\b(?:{'|'.join(name for name in LABELS if '_' in name)})\b")
_LONGEST: Final = 300


def opens(**told: object) -> str:
    """What the address opens: the form, with what is told by name; None is left out."""
    known = [(name, str(value)) for name, value in told.items() if value is not None]
    return f"{OPENS}?{urlencode(known, quote_via=quote)}" if known else OPENS


def begun(open_: str) -> dict[str, str] | None:
    """What the form begins with, from what the address opens; None where that is something else."""
    kind, _, told = open_.partition("?")
    if kind != OPENS:
        return None
    return {name: value[:_LONGEST] for name, value in pairs_of(told)}


def known_of(one: Discovered) -> dict[str, str]:
    """What calls tell of hardware that nobody declared, as the form calls it."""
    since = one.first_at.replace(tzinfo=UTC)
    following = min((start for start, _ in one.declared if start > since), default=None)
    told: dict[str, object] = {
        "name": one.deployment, "model": one.model, "accelerator": one.accelerator, "count": one.accelerator_count,
        "engine": one.engine, "precision": one.precision, "region": one.region, "environment": one.environment,
        "endpoints": one.endpoint_host if one.deployment is None else None,
        "day": f"{since:%Y-%m-%d}", "hour": f"{since:%H}",
    }  # fmt: skip
    if following is not None:
        told |= {"until": f"{following.astimezone(UTC):%Y-%m-%d}", "until_hour": f"{following.astimezone(UTC):%H}"}
    return {name: str(value) for name, value in told.items() if value is not None}


def declaration(told: Told, now: datetime) -> Deployment:
    """The deployment that the form holds.

    Raises:
        BadDeploymentsError: naming everything that is wrong with it.
    """
    said: dict[str, Any] = {name: text for name in TEXTS if (text := told.get(name, "").strip())}
    said |= {member: _whole(text) for name, member in COUNTS.items() if (text := told.get(name, "").strip())}
    said |= {name: lines for name in LISTS if (lines := told.get(name, "").split())}
    for member, (day, hour) in BOUNDS.items():
        if text := told.get(day, "").strip():
            said[member] = f"{text}T{told.get(hour) or '00'}:00:00Z"
    kind = told.get("kind", "")
    settings = {name: _amount(told.get(f"{kind}.{name}", "")) for name in SETTINGS.get(kind, ())}
    said["profile"] = {"kind": kind, **{name: text for name, text in settings.items() if text}}
    if tariff := _amount(told.get("tariff", "")):
        said["power"] = {"tariff_usd_per_kwh": tariff}
    try:
        return deployment_reading.read(said, now)
    except BadDeploymentsError as error:
        raise BadDeploymentsError(dict.fromkeys([*error.problems, *_besides(said, now)])) from error


def _besides(said: Mapping[str, Any], now: datetime) -> Sequence[str]:
    """What else is wrong where what a declaration cannot be without is missing, or its accelerator unknown."""
    filled = {"name": "-", "model": "-", **said, "accelerator": catalog.current().accelerators[0].id}
    try:
        deployment_reading.read(filled, now)
    except BadDeploymentsError as error:
        return error.problems
    return ()


def in_words(problem: str, name: str) -> str:
    """A problem of a deployment of that name, as the form calls its fields."""
    said = problem.removeprefix(f"deployment {name!r}: ")
    first, space, rest = said.partition(" ")
    return _MEMBER.sub(lambda found: LABELS[found[0]], LABELS.get(first.rstrip(":"), first) + space + rest)


def problems(found: Sequence[str]) -> Component:
    """What keeps it from being declared."""
    return html.Div(
        [html.H3("Before it can be declared"), html.Ul([html.Li(told, className="wrong") for told in found],
                                                      className="problems")]
    )  # fmt: skip


def form(told: Told, now: datetime) -> Component:
    """The form, with what is known; from this hour on, unless another is told."""
    told = {"day": f"{now.astimezone(UTC):%Y-%m-%d}", "hour": f"{now.astimezone(UTC):%H}", "count": "1",
            "kind": "rented", **told}  # fmt: skip
    act = {"to": "accelerators-do"}
    check = html.Button("Check", type="submit", className="button", title="Say what an hour costs; store nothing",
                        **data(do="check", **act))  # fmt: skip
    declare = html.Button("Declare", type="submit", className="button primary", **data(do="declare", **act))
    return html.Form(
        [
            group("What it serves", [
                _field("name", told, hint="as calls name it", needed=True), _field("model", told, needed=True),
                _field("owner", told, hint="who carries idle"),
            ], "three"),
            group("Runs on", [
                _field("accelerator", told, hint="nvidia-b200", needed=True, list_="declaring-accelerators"),
                entry_field("count", "Count", told, mode="numeric", hint="1"),
                _field("engine", told, hint="vllm", list_="declaring-engines"),
                _field("precision", told, hint="fp8, bf16, …"),
                _field("region", told, hint="for tariff, carbon", list_="declaring-regions"),
                _field("environment", told, hint="production"),
                *_offered(),
            ], "three"),
            group("Holds, in UTC", [
                entry_field("day", "From", told, shape="date"), _hours("hour", "Hour it begins", told),
                entry_field("until", "Until, not included", told, shape="date"),
                _hours("until_hour", "Hour it ends", told),
            ], "four"),
            html.Fieldset([html.Legend("How its hours are paid"), _select("kind", "Kind", KINDS, told)],
                          className="single"),
            *(html.Fieldset([html.Legend(KINDS[kind].partition(":")[0], className="unseen"), *_paid(kind, told)],
                            className=f"three paid of-{kind}") for kind in KINDS),
            group("Electricity", [
                entry_field("tariff", "USD per kWh, where it is paid apart", told, mode="decimal",
                            hint="catalog, by region"),
            ], "single"),
            group("Its calls and counters, one a line", [
                _lines("endpoints", "Endpoints whose calls belong to it", told, "llm.internal:8000"),
                _lines("metrics", "Engine metrics", told, "http://10.0.3.7:8000/metrics"),
                _lines("dcgm", "DCGM exporters", told, "http://10.0.3.7:9400/metrics"),
            ], "single"),
            _more(told),
            html.Div(id="declaring-effect", className="effect", **aria(live="polite")),
            html.Div([check, declare], className="pager"),
        ],
        className="form declaring",
    )  # fmt: skip


def _paid(kind: str, told: Told) -> list[Component]:
    """The fields of one way of paying; their names begin with it, so that what was typed for another stays."""
    needs = {"rented": {"usd_per_hour"}, "spot": {"prices"}}.get(kind, set()) | (
        {"contract", "usd_per_hour", "starts", "months", "accelerators"} if kind == "reserved" else set()
    )
    yes = {"": "yes, as by default", "false": "no, it is paid apart"}
    no = {"": "no, as by default", "true": "yes, with the hosting"}
    made: list[Component] = []
    for name in SETTINGS[kind]:
        field = f"{kind}.{name}"
        if name == "prices":
            hint = "2026-11-01T00:00Z=1.20\n2026-11-14T06:00Z=1.35"
            made.append(_lines(field, "Prices: instant=USD per accelerator-hour, one a line", told, hint, rows=3))
        elif name == "includes_power":
            made.append(_select(field, "Electricity is included", yes, told))
        elif name == "hosting_includes_power":
            made.append(_select(field, "Electricity is included", no, told))
        elif name == "name":
            made.append(_select(field, "Survey", PRESET_NAMES, told))
        elif name == "tier":
            tiers = {tier: tier for tier in get_args(Tier)}
            made.append(_select(field, "Tier", tiers, {field: get_args(Tier)[0], **told}))
        else:
            shape = "date" if name == "starts" else "text"
            mode = None if name in {"contract", "starts"} else "decimal"
            made.append(entry_field(field, LABELS[name], told, hint=PLACEHOLDERS.get(name, ""), shape=shape, mode=mode,
                                    needed=name in needs))  # fmt: skip
    return made


def _more(told: Told) -> Component:
    replacing = html.Label(
        [html.Span("Declared before for the same, earlier hour"),
         html.Select([html.Option("stays: say so, if there is one", value=""),
                      html.Option("was wrong: replace it", value="yes")], name="replace")],
        className="entry wide",
    )  # fmt: skip
    fields = [
        _field("pool", told, hint="shared accelerators"),
        entry_field("prefill", "Prefill only", told, mode="numeric", hint="how many of them"),
        entry_field("decode", "Decode only", told, mode="numeric", hint="how many of them"), replacing,
    ]  # fmt: skip
    is_told = any(told.get(name) for name in ("pool", "prefill", "decode"))
    return html.Details(
        [html.Summary("More: pool, prefill and decode, corrections"),
         html.Fieldset([html.Legend("More", className="unseen"), *fields], className="three")],
        open=is_told, className="more",
    )  # fmt: skip


def _field(name: str, told: Told, **more: Any) -> Component:
    return entry_field(name, LABELS[name], told, **more)


def _select(name: str, words: str, options: Mapping[str, str], told: Told) -> Component:
    chosen = told.get(name, "")
    choices: list[Component] = [
        html.Option(text, value=value, **({"selected": "selected"} if value == chosen else {}))  # type: ignore[arg-type]
        for value, text in options.items()
    ]
    return html.Label([html.Span(words), html.Select(choices, name=name)], className="entry")


def _hours(name: str, words: str, told: Told) -> Component:
    return _select(name, words, {f"{hour:02}": f"{hour:02}:00" for hour in range(24)}, told)


def _lines(name: str, words: str, told: Told, hint: str, rows: int = 2) -> Component:
    box = dcc.Textarea(name=name, value=told.get(name, ""), placeholder=hint, rows=rows, wrap="off", spellCheck=False)
    return html.Label([html.Span(words), box], className="entry wide")


def _offered() -> list[Component]:
    """What the catalog knows, to choose from."""
    known = catalog.current()
    tables: dict[str, Sequence[Row]] = {
        "accelerators": known.accelerators, "engines": known.engines, "regions": known.regions,
    }  # fmt: skip
    return [
        html.Datalist(
            [html.Option(getattr(row, "name", None) or row.id, value=row.id) for row in rows], id=f"declaring-{name}"
        )
        for name, rows in tables.items()
    ]


def _amount(text: str) -> str:
    """A setting as it was typed, its lines joined by blanks, without a leading $."""
    return " ".join(text.split()).removeprefix("$")


def _whole(text: str) -> int | str:
    """A whole number; what is none is told as it was typed, and refused."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= len("1000000000") else text

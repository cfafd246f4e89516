"""The pieces that pages are made of: the frame around a page, cards, changes, sparklines, explanations, empty states.

Pure functions of values. Text from outside goes into elements as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from dash import dcc, html

from millicent.dashboard import format as fmt
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.warehouse.metrics import Measure

LATE: Final = timedelta(minutes=10)
STALE: Final = timedelta(minutes=30)
COVERED: Final = Decimal("0.95")

Emptiness = Literal["unconnected", "undeclared", "no_rows", "no_hours", "ingesting", "forbidden"]

WATCH_MS: Final = 1_500
"""How often the empty product looks for the first call."""

DECLARE: Final = """millicent deployments declare llama-70b \\
  --model llama-3.3-70b --engine vllm --precision fp8 \\
  --accelerator nvidia-h100-sxm --count 8 \\
  --profile kind=rented --profile usd_per_hour=2.20"""

_EMPTY: Final[dict[Emptiness, tuple[str, str]]] = {
    "unconnected": (
        "Send your first call",
        "Copy a few lines into what calls a model. You see what the call cost, and why, seconds after it ends.",
    ),
    "undeclared": (
        "No own hardware yet",
        "Declare what serves a model, on which accelerators, and what they cost: every hour from then on has a price.",
    ),
    "no_hours": ("No accelerators match", "No own hardware was paid for in this period with these filters."),
    "no_rows": ("No calls match", "Nothing was recorded in this period with these filters."),
    "ingesting": ("Still loading", "Calls have been received and are being priced. This page follows in a moment."),
    "forbidden": ("Not yours to see", "Your account may not see these calls. Ask an administrator for access."),
}


def aria(**names: str) -> dict[str, Any]:
    """`aria-*` attributes."""
    return {f"aria-{name}": value for name, value in names.items()}


def data(**names: str) -> dict[str, Any]:
    """`data-*` attributes."""
    return {f"data-{name}": value for name, value in names.items()}


def link(children: Any, href: str, **props: Any) -> Component:
    """A link within the page: it changes the address and what is shown, without loading the page again."""
    return html.A(children, href=href, **data(nav=""), **props)


def icon(name: str) -> Component:
    """A mask of `style.css`, in the colour of the text around it."""
    return html.I(className=f"icon icon-{name}", **aria(hidden="true"))


def dot(colour: str, *, hatched: bool = False, look: str = "") -> Component:
    """The colour of an entity; hatched for idle; `look` is a class of its own instead."""
    names = ["dot", *(["hatched"] if hatched else []), *([look] if look else [])]
    return html.I(className=" ".join(names), style={"--colour": colour}, **aria(hidden="true"))


def delta(change: fmt.Change | None, absent: str = "") -> Component:
    """A change with arrow, size and meaning; `absent` where there is nothing to compare with."""
    if change is None:
        return html.Span(absent, className="delta")
    return html.Span(
        [html.Span(change.arrow, className="arrow", **aria(hidden="true")) if change.arrow else None,
         html.Span(change.text, **aria(hidden="true")), html.Span(change.words, className="unseen")],
        className=f"delta {change.tone} {change.direction}",
    )  # fmt: skip


def spark(values: Sequence[Decimal | None], colour: str = "var(--accent)") -> Component:
    """A sparkline as a CSS mask, so that it takes the colours of the theme. Decoration: the numbers are beside it."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return html.I(className="spark", **aria(hidden="true"))
    low, high = min(value for _, value in known), max(value for _, value in known)
    across, up = len(values) - 1, high - low
    points = [
        (f"{100 * at / across:.4g}", f"{29 - float((value - low) / up) * 26 if up else 16:.3g}") for at, value in known
    ]
    path = "L".join(f"{x} {y}" for x, y in points)
    return html.I(
        html.I(),
        className="spark",
        style={
            "--colour": colour,
            "--line": _svg(f"<path d='M{path}' fill='none' stroke='#000' stroke-width='1.6' stroke-linejoin='round' "
                           "vector-effect='non-scaling-stroke'/>"),
            "--area": _svg(f"<path d='M{path}L{points[-1][0]} 32L{points[0][0]} 32Z'/>"),
            "--x": f"{points[-1][0]}%",
            "--y": f"{float(points[-1][1]) / 0.32:.3g}%",
        },
        **aria(hidden="true"),
    )  # fmt: skip


def how(measure: Measure, *facts: str, opens: str | None = None) -> Component:
    """How a number is computed, from the metrics dictionary, behind a small button.

    `opens` is its figure as written: the way to its sums, its parts and its calls.
    """
    way = link(["See its sums and its calls", icon("next")], f"?v=1&open={quote(opens, safe='')}", className="way",
               **data(opens=opens)) if opens else None  # fmt: skip
    return popover(
        "i",
        [html.P(measure.words), html.P(measure.formula, className="formula"), *(html.P(fact) for fact in facts), way],
        label=f"How {measure.label} is computed",
        className="how",
    )


def popover(face: Any, body: Any, *, label: str | None = None, className: str = "") -> Component:  # noqa: N803 - as Dash spells it
    """`face`, and `body` in a box that opens under it; by keyboard too, and Escape closes it."""
    summary = html.Summary(face, title=label, **(aria(label=label) if label else {}))
    return html.Details([summary, html.Div(body, className="popover")], className=f"pop {className}")


def kpi(
    name: str,
    value: str | Component,
    *,
    change: fmt.Change | None,
    beside: str | Component,
    trend: Component | None = None,
    label: str | None = None,
    exact: str | None = None,
    facts: Sequence[str] = (),
    under: Component | None = None,
    opens: str | None = None,
) -> Component:
    """A card: what it is, its value, how it moved, its trend, and how it was computed.

    `name` is a measure of the dictionary; `value` may be a link to where it came from; `beside` stands beside the
    change; `opens` is the figure, as written, whose derivation the card opens.
    """
    measure = DICTIONARY[name]
    return html.Section(
        [
            html.Div([html.H2(label or measure.label), how(measure, *facts, opens=opens)], className="kpi-head"),
            html.Div([html.Strong(value, title=exact, id=f"kpi-{name}"), trend], className="kpi-value"),
            html.Div([delta(change) if change else None, html.Span(beside)], className="kpi-foot"),
            under,
        ],
        className="card kpi",
    )


def panel(title: str, subtitle: Any, body: Any, *, aside: Any = None, id: str, className: str = "") -> Component:  # noqa: A002, N803 - as Dash spells them
    """A titled card; `id` is an anchor and the base of its parts' ids."""
    head = html.Div([html.Div([html.H2(title, id=f"{id}-title"), html.P(subtitle, id=f"{id}-words")]), aside],
                    className="panel-head")  # fmt: skip
    return html.Section([head, body], id=id, className=f"card panel {className}", **aria(labelledby=f"{id}-title"))


def meter(parts: Sequence[tuple[str, Decimal, str]]) -> Component:
    """A bar of shares: class, share between 0 and 1, and what it is."""
    return html.Div(
        [html.I(className=name, style={"width": f"{max(share, 0):.2%}"}, title=words) for name, share, words in parts],
        className="meter",
        role="img",
        **aria(label=", ".join(words for _, _, words in parts)),
    )


def pill(children: Any, tone: Literal["good", "warn", "bad", "plain"] = "plain", title: str | None = None) -> Component:
    """A small fact in the header."""
    return html.Span(children, className=f"pill {tone}", title=title)


def freshness(fresh: datetime, now: datetime) -> Component:
    """Through when the numbers are complete; amber and red when that is long ago."""
    late = now - fresh
    tone: Literal["good", "warn", "bad"] = "bad" if late > STALE else "warn" if late > LATE else "good"
    return pill([html.I(className="lamp"), html.Span("Complete through", className="wide"), html.B(fmt.moment(fresh))],
                tone, "Numbers are complete through this moment")  # fmt: skip


def coverage(total: dict[str, Any]) -> Component:
    """Share of calls priced, amber under 95%, with the counts behind it on a click."""
    priced = total["priced_ratio"]
    low = priced is not None and priced < COVERED
    face = pill([html.Span(["Priced ", html.B(fmt.percent(priced))])], "warn" if low else "plain")
    calls, unpriced, nobody = (fmt.count(total[n] or 0) for n in ("calls", "unpriced_calls", "unattributed_calls"))
    body = [
        html.P(f"{unpriced} of {calls} calls are unpriced: their cost is unknown and in no sum here."),
        html.P(f"{nobody} calls carry no team; they are the row Unattributed."),
    ]
    return popover(face, body, className="cover")


def unattributed(share: Decimal | None, href: str) -> Component:
    """Share of spend that no team carries, amber over 5%; leads to those calls."""
    high = share is not None and share > 1 - COVERED
    words = [html.Span("Unattributed"), html.B(fmt.percent(share))]
    return link(words, href, className="pill warn" if high else "pill plain", id="unattributed",
                title="Spend on calls that carry no team: show only those")  # fmt: skip


def empty(kind: Emptiness, *, clear: str | None = None, also: Component | None = None) -> Component:
    """Why there is nothing to see, and what to do about it; `clear` is the address without filters."""
    title, words = _EMPTY[kind]
    more: list[Component] = []
    if kind == "unconnected":
        more += [
            html.Div(id="welcome-watch", className="watching"),
            html.Div(id="welcome", className="guide"),
            dcc.Interval(id="welcome-clock", interval=WATCH_MS),
            dcc.Store(id="welcome-do"),
        ]
    if kind == "undeclared":
        more.append(html.Pre(DECLARE))
    if clear:
        more.append(link("Clear the filters", clear, className="button"))
    if also is not None:
        more.append(also)
    picture = html.Div(icon(kind), className="picture", **aria(hidden="true"))
    live: dict[str, Any] = {"role": "status"} if kind != "unconnected" else {}
    return html.Div([picture, html.H2(title), html.P(words), *more], className=f"card empty {kind}", **live)


Entries = Sequence[tuple[str, Sequence[tuple[str, str, str]]]]
"""Sections of the navigation: heading, and entries of icon, words and address."""


def sidebar(pages: Entries, others: Entries, foot: Sequence[str], here: str) -> Component:
    """Navigation: pages, then other places; `here` is the address of this page. On a phone a button unfolds it."""
    groups: list[Component] = []
    for sections, are_pages in ((pages, True), (others, False)):
        for heading, entries in sections:
            items = html.Ul([html.Li(_entry(*entry, page=are_pages, here=here)) for entry in entries])
            groups.append(html.Div([html.H3(heading) if heading else None, items]))
    menu = html.Button([icon("menu"), html.Span("Menu")], className="button fold", type="button",
                       **data(action="menu"), **aria(expanded="false", controls="pages-of"))  # fmt: skip
    return html.Nav(
        [html.A([html.I(className="mark", **aria(hidden="true")), "Millicent"], href="/", className="brand"), menu,
         html.Div(groups, id="pages-of", className="groups"),
         html.Div([html.P(line) for line in foot], className="nav-foot")],
        className="sidebar", **aria(label="Main"),
    )  # fmt: skip


def _entry(name: str, words: str, href: str, *, page: bool, here: str) -> Component:
    if page:
        return link([icon(name), words], href, **data(carry=""), **(aria(current="page") if href == here else {}))
    return html.A([icon(name), words], href=href)


def header(title: str, actions: Sequence[Any], prefix: str = "") -> Component:
    """Title, period in words (`#words`), pills (`#pills`) and actions; `prefix` goes before both ids."""
    theme = html.Button(icon("theme"), className="button square", type="button",
                        **data(action="theme"), **aria(label="Switch between light and dark"))  # fmt: skip
    return html.Header(
        [
            html.Div([html.H1(title), html.P(id=f"{prefix}words")]),
            html.Div([html.Div(id=f"{prefix}pills", className="pills"), *actions, theme], className="actions"),
        ]
    )


def segmented(control: str, options: Mapping[Any, str], value: str, words: str, size: str = "") -> Component:
    """One choice of a few, side by side; `words` name it for those who hear it."""
    choices = [{"value": key, "label": text} for key, text in options.items()]
    radio = dcc.RadioItems(id=control, options=choices, value=value, inline=True, className=f"segmented {size}")
    return html.Div(radio, role="group", **aria(label=words))


def chooser(control: str, title: str) -> Component:
    """Any number of a dimension's values; what can be chosen comes later."""
    return dcc.Dropdown(id=control, options=[], value=[], multi=True, placeholder=f"{title}: all", debounce=True,
                        maxHeight=320, labels={"selected_count": title + ": {num_selected}"})  # fmt: skip


def _svg(body: str) -> str:
    head = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 32' preserveAspectRatio='none'>"
    svg = quote(f"{head}{body}</svg>", safe=" =:/'")
    return f'url("data:image/svg+xml,{svg}")'

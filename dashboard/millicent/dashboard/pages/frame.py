"""What surrounds every page: its place in the navigation and the address, its filter bar, and where changes are said.

A page is a `Place`, the one value that its layout, its callbacks and the browser share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from millicent.dashboard.components import aria, chooser, data, header, icon, segmented, sidebar
from millicent.dashboard.pages import viewing
from millicent.dashboard.state import BASES, FILTERS, RANGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

Section = tuple[str, tuple[tuple[str, str, str], ...]]
Control = tuple[str, str | None, str | None]
"""Key in the address, id of the control (None: links alone set it), default (None: many values)."""

PAGES: Final[tuple[Section, ...]] = (
    (
        "",
        (
            ("home", "Overview", "/"),
            ("compass", "Cost explorer", "/explore"),
            ("people", "Teams", "/teams"),
            ("wallet", "Budgets", "/budgets"),
            ("bell", "Alerts", "/alerts"),
            ("scale", "Unit economics", "/units"),
            ("layers", "Caching", "/caching"),
        ),
    ),
    (
        "Own hardware",
        (
            ("chip", "Accelerators", "/accelerators"),
            ("gauge", "Efficiency", "/efficiency"),
        ),
    ),
    (
        "Data",
        (
            ("list", "Requests", "/requests"),
            ("tag", "Prices", "/prices"),
            ("shield", "Data quality", "/quality"),
            ("download", "Exports", "/exports"),
            ("sliders", "Settings", "/settings"),
        ),
    ),
)  # fmt: skip
"""Pages in the navigation, in groups: icon, words, address."""
DATA: Final[Section] = (
    "Reference",
    (("book", "Metrics dictionary", "/api/v1/metrics-dictionary"), ("check", "Balance of calls", "/api/v1/balance")),
)
TITLES: Final = {"team": "Team", "model": "Model", "accelerator": "Accelerator", "environment": "Environment"}
COMPARE: Final = {"previous": "vs previous period", "year": "vs a year ago", "none": "no comparison"}
REFRESH_MS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A page: its address is `/` and its name, which also begins the ids of all its parts.

    Attributes:
        name: what the ids of its parts begin with.
        at: its address where that is another; `PATHS` in `app.js` knows it, too.
        title: its heading.
        filters: dimensions that can be filtered on, and how they are called.
        compared: whether numbers are compared with those of another period.
        based: whether the cost basis can be chosen.
        ranged: whether the period can be chosen; without, that in the address goes along to other pages.
        more: what else its address tells. What an answer for the whole page depends on may be called anything; the keys
            of `LOOK` in `app.js` go to `{name}-look` and not to `{name}-scope`.
    """

    name: str
    title: str
    filters: Mapping[str, str] = field(default_factory=lambda: TITLES)
    compared: bool = True
    based: bool = True
    ranged: bool = True
    more: tuple[Control, ...] = ()
    at: str | None = None

    @property
    def path(self) -> str:
        return self.at or f"/{self.name}"

    @property
    def controls(self) -> tuple[Control, ...]:
        """All that the address of the page may tell."""
        return (
            ("p", f"{self.name}-range" if self.ranged else None, "4w"),
            *([("vs", f"{self.name}-compare", "previous")] if self.compared else []),
            *([("basis", f"{self.name}-basis", "effective")] if self.based else []),
            ("cur", None, ""),
            ("tz", None, ""),
            *((name, f"{self.name}-{name}", None) for name in self.filters),
            *((name, None, None) for name in FILTERS if name not in self.filters),
            *self.more,
        )


def page(
    place: Place, price_version: str, board: Component, *, actions: Sequence[Any] = (), stores: Sequence[str] = (),
    sections: Sequence[Section] = (), first: Sequence[Component] = (),
) -> Component:  # fmt: skip
    """A page with everything around it: `{name}-words`, `-pills`, `-notice`, `-export` and `-drawer` are its own.

    Args:
        place: what it is.
        price_version: of the price book in force.
        board: its panels.
        actions: what stands beside Share and Export.
        stores: further stores, without the name of the page.
        sections: its own places in the navigation.
        first: what stands first among its filters.
    """
    name = place.name
    exports = html.Div(id=f"{name}-export", className="exports")
    main = html.Main(
        [header(place.title, [share(), exports, *actions], f"{name}-"), bar(place, first),
         html.Div(id=f"{name}-notice"), board, html.Div(id=f"{name}-drawer", className="drawer")],
        id="main",
    )  # fmt: skip
    kept = [
        dcc.Location(id=f"{name}-url", refresh=False),
        dcc.Interval(id=f"{name}-clock", interval=REFRESH_MS),
        *(dcc.Store(id=f"{name}-{one}") for one in ("scope", "look", "tick", "choices", "open", *stores)),
        dcc.Store(id=f"{name}-controls", data=place.controls),
    ]
    return frame(place.path, main, kept, price_version, *sections)


def bar(place: Place, first: Sequence[Component] = ()) -> Component:
    """The filters of a page, after what stands `first` among them."""
    name = place.name
    compare = dcc.Dropdown(id=f"{name}-compare", value="previous", clearable=False, searchable=False,
                           options=[{"value": value, "label": words} for value, words in COMPARE.items()])  # fmt: skip
    return html.Div(
        [
            *first,
            *([segmented(f"{name}-range", RANGES, "4w", "Period")] if place.ranged else []),
            *([compare] if place.compared else []),
            *(chooser(f"{name}-{dimension}", title) for dimension, title in place.filters.items()),
            html.Div(className="grow"),
            *([segmented(f"{name}-basis", BASES, "effective", "Cost basis")] if place.based else []),
        ],
        className="filters", role="search", **aria(label="Filters"),
    )  # fmt: skip


def frame(
    here: str, page: Component, stores: Sequence[Component], price_version: str, *sections: Section
) -> Component:  # fmt: skip
    """`page` with the navigation around it; `sections` are its own places in it."""
    return html.Div(
        [
            *stores,
            html.A("Skip to the numbers", href="#main", className="skip"),
            sidebar(PAGES, (*sections, DATA), [f"Price book {price_version}"], here),
            page,
            html.Div(id="said", role="status", className="unseen"),
        ],
        className="frame",
    )


def addressed(app: Dash, name: str, controls: Sequence[Control]) -> None:
    """Have the address of a page and its controls follow each other, and a clock tick for what new calls change.

    Args:
        app: where callbacks are added.
        name: what the ids of the page begin with, and its address without the `/`.
        controls: what the address tells.
    """
    browser: Any = app.clientside_callback
    shown = [(control, default) for _, control, default in controls if control]
    browser(
        ClientsideFunction("millicent", "steered"),
        Output(f"{name}-url", "search"), Output(f"{name}-scope", "data"), Output(f"{name}-look", "data"),
        *(Output(control, "value") for control, default in shown if default is not None),
        Input(f"{name}-url", "search"), *(Input(control, "value") for control, _ in shown),
        *(State(f"{name}-{store}", "data") for store in ("controls", "scope", "look")),
    )  # fmt: skip
    browser(
        ClientsideFunction("millicent", "tick"),
        Output(f"{name}-tick", "data"), Input(f"{name}-clock", "n_intervals"), prevent_initial_call=True,
    )  # fmt: skip


def offered(app: Dash, name: str) -> None:
    """Have the filters of a page offer what `{name}-choices` holds: by dimension, a list of what can be chosen."""
    browser: Any = app.clientside_callback
    browser(
        ClientsideFunction("millicent", "offer"), Input(f"{name}-choices", "data"), State(f"{name}-controls", "data")
    )


def tabled(app: Dash, *charts: str) -> None:
    """Have the numbers of `{chart}-chart` stand in `{chart}-table` once `{chart}-as-table` is pressed."""
    browser: Any = app.clientside_callback
    for chart in charts:
        browser(
            ClientsideFunction("millicent", "table"),
            Output(f"{chart}-table", "children"),
            Input(f"{chart}-as-table", "n_clicks"), Input(f"{chart}-chart", "figure"),
        )  # fmt: skip


def share() -> Component:
    """The menu of the view, and a button that copies the address of what is shown."""
    button = html.Button([icon("share"), html.Span("Share")], className="button", type="button",
                         title="Copy the address of this view", **data(action="share"))  # fmt: skip
    return html.Div([viewing.menu(), button], className="sharing")

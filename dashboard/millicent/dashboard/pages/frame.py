"""What surrounds every page: the way in for the keyboard, navigation, and where changes are said aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import ClientsideFunction, Dash, Input, Output, State, html

from millicent.dashboard.components import data, icon, sidebar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from dash.development.base_component import Component

Section = tuple[str, tuple[tuple[str, str, str], ...]]

PAGES: Final[Section] = (
    "",
    (
        ("home", "Overview", "/"),
        ("chip", "Accelerators", "/accelerators"),
        ("gauge", "Efficiency", "/efficiency"),
        ("list", "Requests", "/requests"),
        ("tag", "Prices", "/prices"),
    ),
)
DATA: Final[Section] = (
    "Data",
    (("book", "Metrics dictionary", "/api/v1/metrics-dictionary"), ("check", "Balance of calls", "/api/v1/balance")),
)


def frame(
    here: str, page: Component, stores: Sequence[Component], price_version: str, *sections: Section
) -> Component:  # fmt: skip
    """`page` with everything around it; `sections` are its own places in the navigation."""
    return html.Div(
        [
            *stores,
            html.A("Skip to the numbers", href="#main", className="skip"),
            sidebar((PAGES, *sections, DATA), ["USD · UTC days", f"Price book {price_version}"], here),
            page,
            html.Div(id="said", role="status", className="unseen"),
        ],
        className="frame",
    )


def addressed(app: Dash, page: str, controls: Sequence[tuple[str, str | None, str | None]]) -> None:
    """Have the address of a page and its controls follow each other, and a clock tick for what new calls change.

    Args:
        app: where callbacks are added.
        page: what the ids of the page begin with, and the name of its function in the browser.
        controls: key in the address, id of the control (None: links alone set it), default (None: many values).
    """
    browser: Any = app.clientside_callback
    shown = [(control, default) for _, control, default in controls if control]
    browser(
        ClientsideFunction("millicent", page),
        Output(f"{page}-url", "search"), Output(f"{page}-scope", "data"), Output(f"{page}-look", "data"),
        *(Output(control, "value") for control, default in shown if default is not None),
        Input(f"{page}-url", "search"), *(Input(control, "value") for control, _ in shown),
        *(State(f"{page}-{name}", "data") for name in ("controls", "scope", "look")),
    )  # fmt: skip
    browser(
        ClientsideFunction("millicent", "tick"),
        Output(f"{page}-tick", "data"), Input(f"{page}-clock", "n_intervals"), prevent_initial_call=True,
    )  # fmt: skip


def share() -> Component:
    """Copies the address of what is shown."""
    return html.Button([icon("share"), html.Span("Share")], className="button", type="button",
                       title="Copy the address of this view", **data(action="share"))  # fmt: skip

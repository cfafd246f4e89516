"""What surrounds every page: the way in for the keyboard, navigation, and where changes are said aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import html

from millicent.dashboard.components import data, icon, sidebar

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def share() -> Component:
    """Copies the address of what is shown."""
    return html.Button([icon("share"), html.Span("Share")], className="button", type="button",
                       title="Copy the address of this view", **data(action="share"))  # fmt: skip

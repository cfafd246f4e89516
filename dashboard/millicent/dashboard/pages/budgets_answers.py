"""What the parts of the Budgets page show, each asked for by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, dot, empty, freshness, icon, link, pill
from millicent.dashboard.outlook_figures import ACCENT, OVER
from millicent.dashboard.pages import (
    budgets_alerts,
    budgets_history,
    budgets_one,
    budgets_tree,
    budgets_trial,
)
from millicent.dashboard.pages.budgets_form import SCOPES, form, holds, told_of
from millicent.dashboard.pages.budgets_place import Looked, number, opened, opens
from millicent.dashboard.pages.budgets_reading import at, chosen, listed, once, scope, stands
from millicent.dashboard.pages.budgets_words import amounts_in, period_name
from millicent.dashboard.pages.derivation import shelf
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.pages.prices_forms import text_of
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import VERSION, View
from millicent.warehouse import budgets
from millicent.warehouse.control import DECLARED
from millicent.warehouse.standings import Standing, Untold
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.budgets_reading import Stood
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.store import Warehouse

SET: Final = "millicent budgets set Company 27500"
UNTOLD: Final[list[Any]] = ["The budget", "", None, NOTHING, None, None, None]


def operates() -> bool:
    """Whether whoever looks may change budgets."""
    try:
        return access.principal().operates
    except LookupError:
        return False


def headline(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Notice, period, pills, what adds a budget, and cards."""
    reader = Reader.of(warehouse, place.view)
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), None, []]
    found = stands(reader)
    add = _adding() if operates() else None
    said = f"as of {fmt.moment(at(reader))} {fmt.zone()}"
    pills = [freshness(reader.fresh, reader.now)]
    if not found:
        return [_none(), f"none is set yet, {said}", pills, add, []]
    count = "one budget holds" if len(found) == 1 else f"{len(found)} budgets hold"
    return [None, f"{count}, {said}", pills, add, budgets_tree.tiles(found, place)]


def plan(warehouse: Warehouse, place: Looked) -> list[Any]:
    """The list as a tree, and its words."""
    reader = Reader.of(warehouse, place.view)
    found = stands(reader) if reader else []
    if not found:
        return [None, ""]
    lines = listed(found, place)
    if not any(not line.context for line in lines):
        clear = link("Show all", place.href(show="all", text=""), className="button")
        return [html.Div([html.P("No budget matches."), clear], className="nothing"), ""]
    return [
        budgets_tree.tree(lines, place, chosen(found, place)),
        "worst first, parts below their whole · click one to open it",
    ]


def one(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Name, words, what can be done with it, burn-down, its numbers, its legend and what it counts."""
    reader = Reader.of(warehouse, place.view)
    found = stands(reader) if reader else []
    shown = chosen(found, place)
    if reader is None or shown is None:
        return UNTOLD
    budget = shown.budget
    with amounts_in(budget.currency):
        words = f"{budgets_tree.left_of(shown, at(reader))} · {scope(budget)}"
        aside = [budgets_tree.verdict(shown), *_doing(budget)]
        mark = data(budget=str(budget.id))
        gone = _gone(warehouse, reader, place, shown)
        if isinstance(shown, Untold):
            body = html.Div([gone, html.P(shown.failure, className="banner")], **mark)
            return [budget.name, words, aside, NOTHING, body, None, budgets_one.facts(shown, found)]
        body = html.Div([gone, budgets_one.numbers(shown, at(reader)), budgets_one.unknown(shown)], **mark)
        rolls = budget.rolling_days is not None
        figure = budgets_history.rolled(reader, shown) if rolls else budgets_one.burn_down(shown)
        divided = budgets_one.parts(shown, found, place)
        below = [html.H3(divided[0]), divided[1]] if divided else []
        way = budgets_one.explored(budget, shown)
        more = [html.P(html.A(["See what it was spent on", icon("next")], href=way), className="ways")] if way else []
        told = html.Div([*below, html.H3("What it counts"), budgets_one.facts(shown, found), *more])
        return [budget.name, words, aside, figure, body, _legend(shown), told]


def pasts(warehouse: Warehouse, place: Looked) -> list[Any]:
    """The past periods of the budget that is open."""
    reader, shown = _shown(warehouse, place)
    if reader is None or shown is None:
        return [None, ""]
    with amounts_in(shown.budget.currency):
        return budgets_history.pasts(reader, shown)


def warnings(warehouse: Warehouse, place: Looked) -> list[Any]:
    """The rules and alerts of the budget that is open."""
    reader, shown = _shown(warehouse, place)
    return [None, ""] if reader is None or shown is None else budgets_alerts.warnings(reader, shown)


def revisions(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Every version of the budget that is open: who changed what, and why."""
    reader, shown = _shown(warehouse, place)
    if reader is None or shown is None or shown.budget.id is None:
        return [None, ""]
    versions = budgets.history(warehouse.control, reader.tenant, shown.budget.id)
    names = {other.budget.id: other.budget.name for other in stands(reader)}
    return budgets_history.revisions(versions, at(reader), names)


def drawer(warehouse: Warehouse, place: Looked, open_: str | None) -> Component | list[Any]:
    """The form of a new budget or of a change, for an operator; an empty list where nothing is open.

    With None the browser would take what was in it for still there, and fail on answers that come for it.
    """
    kind, told = opened(open_)
    if kind not in {"new", "change"}:
        return []
    who = access.principal()
    if not who.operates:
        words = html.P("An operator can set budgets here. On the machine of the instance, this command does:")
        return shelf("Set a budget", "", [html.Div([words, html.Pre(SET)])])
    reader = Reader.of(warehouse, View(range="12w", zone=place.view.zone))
    liked = preferences(warehouse.control, who.tenant)
    held = budgets.live(warehouse.control, who.tenant, datetime.now(UTC))
    offered = {name: _values(reader, name) for name in SCOPES} if reader else {}
    if kind == "new":
        parents = {str(one.id): one.name for one in held}
        says = "What a part of the spend may come to. It is watched by rules that you can change."
        return shelf("New budget", says, [form(told, liked, parents, offered)], key=str(open_))
    versions = budgets.history(warehouse.control, who.tenant, number(told.get("id")) or 0)
    if not versions or versions[-1].ended:
        return shelf("There is nothing here", "", [html.P("That budget holds no more.", className="quiet")])
    one = versions[-1]
    if not holds(one, liked):
        why = "Its scope has a name that no form can hold: change it with the API or the command line."
        return shelf(f"Change {one.name}", "", [html.P(why, className="banner")])
    parents = {str(other.id): other.name for other in held if other.id != one.id}
    says = f"Version {one.version}, set by {one.author}. A change makes the next one; none is overwritten."
    return shelf(f"Change {one.name}", says, [form({**told_of(one), **told}, liked, parents, offered)], key=str(open_))


def tried(warehouse: Warehouse, draft: Any) -> list[Any]:
    """What the past says of what the form holds."""
    return budgets_trial.tried(warehouse, text_of(draft))


def _values(reader: Reader, dimension: str) -> list[str | None]:
    found: list[str | None] = once(
        reader,
        ("values", dimension),
        lambda: reader.warehouse.values(reader.tenant, dimension, reader.window.period),
        60,
    )
    return found


def _shown(warehouse: Warehouse, place: Looked) -> tuple[Reader | None, Stood | None]:
    reader = Reader.of(warehouse, place.view)
    return reader, chosen(stands(reader), place) if reader else None


def _gone(warehouse: Warehouse, reader: Reader, place: Looked, shown: Stood) -> Component | None:
    """Why another budget is shown than the one that the address names."""
    if place.budget is None or place.budget == shown.budget.id:
        return None
    versions = budgets.history(warehouse.control, reader.tenant, place.budget)
    name = versions[-1].name if versions else f"Budget {place.budget}"
    why = "holds no more, or not yet" if versions else "does not exist"
    return html.P([html.B(name), f" {why}: this is {shown.budget.name}."], className="banner")


def _adding() -> Component:
    return link([icon("plus"), html.Span("New budget")], f"?v={VERSION}&open=new", className="button primary",
                **data(opens=opens("new")))  # fmt: skip


def _none() -> Component:
    words = "With a budget this page says whether it will be kept, when it runs out, and who is told before it does."
    how = _adding() if operates() else html.Pre(SET)
    return html.Div(
        [html.Div(icon("wallet"), className="picture", **aria(hidden="true")), html.H2("No budget is set yet"),
         html.P(words), how], className="card empty unset-budgets", role="status",
    )  # fmt: skip


def _doing(budget: Budget) -> Sequence[Component]:
    """What may be done with a budget."""
    if not operates():
        return ()
    if budget.author == DECLARED:
        return (pill("Declared in a file", "plain", f"{DECLARED} declares it: change it there"),)
    change = link([icon("pen"), html.Span("Change")], f"?v={VERSION}&open=change", className="button",
                  **data(opens=opens("change", id=budget.id)))  # fmt: skip
    return (change,)


def _legend(shown: Standing) -> list[Component]:
    """What the lines of the burn-down are."""
    if shown.budget.rolling_days is not None:
        faces = ((dot(ACCENT), f"spent in {shown.budget.rolling_days} days, day by day"), (dot(OVER), "limit"))
        return [html.Li(html.Span([face, words])) for face, words in faces]
    ahead = OVER if shown.forecast and shown.forecast.p50_usd > shown.limit else ACCENT
    told: list[tuple[Any, str]] = [(dot(ACCENT), f"left of {period_name(shown.budget, shown.period.start)}'s limit")]
    if shown.forecast and shown.forecast.days:
        told.append((html.I(className="tick dashed", style={"--colour": ahead}), "forecast"))
        if shown.forecast.p90_usd is not None:
            told.append((dot("", look="band"), "8 of 10 cases"))
    told.append((html.I(className="tick even"), "even pace"))
    return [html.Li(html.Span([face, words])) for face, words in told]

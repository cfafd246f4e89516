"""Who carries what no call used: the policy that holds, what teams would carry under each, and the form to set one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, get_args

from dash import dcc, html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import IDLE_COLOUR, OTHER_COLOUR, label
from millicent.dashboard.components import data, dot
from millicent.pricing.allocation import CachedPolicy
from millicent.pricing.idle import IdlePolicy
from millicent.warehouse.policies import BUILT_IN, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.efficiency_preview import Carried

IDLE: Final[tuple[IdlePolicy, ...]] = get_args(IdlePolicy)
CACHED: Final[tuple[CachedPolicy, ...]] = get_args(CachedPolicy)
IDLE_WORDS: Final[dict[IdlePolicy, str]] = {
    "show": "a line of its own, which no team carries",
    "spread by use": "teams carry it by what they used in the hour",
    "spread evenly": "teams that used it in the hour carry the same",
    "charge the owner": "the team that owns the deployment carries it",
}
CACHED_WORDS: Final[dict[CachedPolicy, str]] = {
    "free": "cached tokens weigh nothing",
    "fraction": "cached tokens weigh what their deployment says, a tenth by default",
    "full": "cached tokens weigh as much as computed ones",
}
HEADS: Final[dict[IdlePolicy, str]] = {
    "show": "Show", "spread by use": "By use", "spread evenly": "Evenly", "charge the owner": "To the owner",
}  # fmt: skip
MOST_TEAMS: Final = 10
MOST_PAST: Final = 4
HOUR: Final = timedelta(hours=1)


def in_force(policies: Sequence[Policy], now: datetime) -> Policy:
    """The policy that holds at an instant."""
    held = [policy for policy in policies if policy.effective_from <= now]
    return held[-1] if held else BUILT_IN


def panel(
    policies: Sequence[Policy], carried: Carried | None, now: datetime, colour_of: Mapping[str | None, str],
    team: tuple[str | None, ...], *, operates: bool, since: str = "",
) -> Component:  # fmt: skip
    """The policy that holds, those before and after it, the preview, and the form for an operator.

    Args:
        policies: by hour.
        carried: from `efficiency_preview`; None where there is nothing to carry.
        now: the clock.
        colour_of: colours by team.
        team: teams that are picked out.
        operates: whether whoever looks may set a policy.
        since: what the preview covers, where that is less than the period.
    """
    current = in_force(policies, now)
    form = _form(current, now) if operates else html.P("An operator can set another policy.", className="quiet")
    table = _table(carried, current, colour_of, team, since) if carried else _nothing()
    return html.Div([html.Div([_state(current, policies, now), form]), table], className="halves")


def _state(current: Policy, policies: Sequence[Policy], now: datetime) -> Component:
    facts = [
        ("Idle", [html.B(current.idle), f": {IDLE_WORDS[current.idle]}"]),
        ("Cached", [html.B(current.cached), f": {CACHED_WORDS[current.cached]}"]),
        ("Since", _since(current)),
    ]
    later = [policy for policy in policies if policy.effective_from > now]
    past = [policy for policy in policies if policy.effective_from < current.effective_from][-MOST_PAST:]
    facts += [("From " + _hour(policy.effective_from), _short(policy)) for policy in later]
    items = [html.Div([html.Dt(name), html.Dd(words)]) for name, words in facts]
    if past:
        told = [html.Li([f"{_hour(policy.effective_from)}: ", *_short(policy)]) for policy in reversed(past)]
        items.append(html.Div([html.Dt("Before"), html.Dd(html.Ul(told))]))
    return html.Dl(items, className="facts single")


def _since(policy: Policy) -> list[Any]:
    if policy.id is None:
        return ["the beginning; nobody has set one yet"]
    words: list[Any] = [f"{_hour(policy.effective_from)}, set by ", html.Bdi(policy.author or "somebody")]
    if policy.created_at:
        words.append(f" on {fmt.moment(policy.created_at)}")
    return [*words, *([": ", html.Bdi(policy.note)] if policy.note else [])]


def _short(policy: Policy) -> list[Any]:
    by = [", by ", html.Bdi(policy.author)] if policy.author else []
    return [f"idle {policy.idle}, cached {policy.cached}", *by]


def _hour(instant: datetime) -> str:
    return f"{fmt.day(instant)} {instant.astimezone(UTC):%Y %H:%M} UTC"


def _nothing() -> Component:
    return html.P("Nothing was idle or unavailable in this period, so there is nothing to carry.", className="quiet")


def _table(
    carried: Carried, current: Policy, colour_of: Mapping[str | None, str], team: tuple[str | None, ...], since: str
) -> Component:
    by_team = {name for shares in carried.values() for name in shares if name is not None}
    ranked = sorted(by_team, key=lambda name: (-carried["spread by use"].get(name, Decimal(0)), name))
    lines = [_line(name, carried, current, colour_of, selected=name in team) for name in ranked[:MOST_TEAMS]]
    if rest := ranked[MOST_TEAMS:]:
        sums = {policy: sum((shares.get(name, Decimal(0)) for name in rest), Decimal(0))
                for policy, shares in carried.items()}  # fmt: skip
        lines.append(_amounts(f"{len(rest)} more teams", sums, current))
    own = [dot(IDLE_COLOUR, hatched=True), html.Span("Nobody, its own line")]
    lines.append(_amounts(html.Span(own), {policy: shares.get(None) for policy, shares in carried.items()}, current,
                          "idle"))  # fmt: skip
    totals = {policy: sum(shares.values(), Decimal(0)) for policy, shares in carried.items()}
    heads = [html.Th("Would carry", scope="col")]
    heads += [
        html.Th(
            [words, html.Small("now") if policy == current.idle else None],
            scope="col",
            title=IDLE_WORDS[policy],
            className=_now(policy, current),
        )
        for policy, words in HEADS.items()
    ]
    table = html.Table(
        [html.Caption("What each team would carry of idle and unavailable cost, by policy", className="unseen"),
         html.Thead(html.Tr(heads)), html.Tbody(lines), html.Tfoot(_amounts("Idle and unavailable", totals, current))],
        className="carriers",
    )  # fmt: skip
    said = f"Shared hour by hour over {since}." if since else "Shared hour by hour over the period shown."
    return html.Div([html.Div(table, className="scroll"), html.P(said, className="quiet")])


def _line(
    name: str, carried: Carried, current: Policy, colour_of: Mapping[str | None, str], *, selected: bool
) -> Component:
    face = html.Span([dot(colour_of.get(name, OTHER_COLOUR)), html.Span(label("team", name), className="name")])
    amounts = {policy: shares.get(name) for policy, shares in carried.items()}
    return _amounts(face, amounts, current, "selected" if selected else "")


def _amounts(
    face: Any, amounts: Mapping[IdlePolicy, Decimal | None], current: Policy, className: str = ""  # noqa: N803 - as Dash spells it
) -> Component:  # fmt: skip
    cells = [
        html.Td(fmt.usd(amounts[policy]) if amounts[policy] is not None else "·", title=fmt.usd_exact(amounts[policy]),
                className=_now(policy, current))
        for policy in HEADS
    ]  # fmt: skip
    return html.Tr([html.Th(face, scope="row"), *cells], className=className)


def _now(policy: IdlePolicy, current: Policy) -> str:
    return "now" if policy == current.idle else ""


def _form(current: Policy, now: datetime) -> Component:
    starts = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    box: Any = dcc.Input
    hours = [(f"{hour:02}", f"{hour:02}:00") for hour in range(24)]
    fields = [
        _select("idle", "Idle and unavailable", [(one, f"{one}: {IDLE_WORDS[one]}") for one in IDLE], current.idle),
        _select("cached", "Cached tokens", [(one, f"{one}: {CACHED_WORDS[one]}") for one in CACHED], current.cached),
        html.Label([html.Span("From"), box(name="day", type="date", value=f"{starts:%Y-%m-%d}", autoComplete="off")],
                   className="entry"),
        _select("hour", "Hour, UTC", hours, f"{starts:%H}"),
        html.Label([html.Span("Note"), box(name="note", type="text", value="", autoComplete="off",
                                           placeholder="why, for those who look later")], className="entry wide"),
    ]  # fmt: skip
    save = html.Button("Set the policy", type="submit", className="button primary",
                       **data(do="policy", to="efficiency-do"))  # fmt: skip
    says = "Hours from then on are computed by it, also where they are past; closed periods stay as they are."
    return html.Form(
        [html.Fieldset([html.Legend("Set a policy"), *fields], className="policy"),
         html.Div([html.Small(says), save], className="pager")],
        className="form",
    )  # fmt: skip


def _select(name: str, words: str, options: Sequence[tuple[str, str]], chosen: str) -> Component:
    choices: list[Component] = [
        html.Option(text, value=value, **({"selected": "selected"} if value == chosen else {}))  # type: ignore[arg-type]
        for value, text in options
    ]
    return html.Label([html.Span(words), html.Select(choices, name=name, key=chosen)], className="entry")


def policy_of(told: Mapping[str, str]) -> Policy:
    """The policy that a form holds.

    Raises:
        ValueError: naming what is wrong with it.
    """
    day, hour = told.get("day", ""), told.get("hour", "")
    try:
        since = datetime.fromisoformat(f"{day}T{hour}:00:00+00:00")
    except ValueError as error:
        raise ValueError(f"From {day!r} {hour!r} is no hour: choose a day and an hour") from error
    made: dict[str, Any] = {"idle": told.get("idle", ""), "cached": told.get("cached", "")}
    return Policy(effective_from=since, note=told.get("note", "").strip(), **made)

"""Which deployments waste most, and which could share accelerators. Pure functions of rows."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, link, popover
from millicent.dashboard.pages.efficiency_flow import hours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.efficiency_place import Place

Row = dict[str, Any]

WASTE: Final = (
    "accelerator_hours", "allocated_accelerator_hours", "busy_accelerator_hours", "capacity_cost_usd", "idle_cost_usd",
    "unavailable_cost_usd", "untracked_cost_usd", "engine_tokens", "metered_tokens", "energy_joules",
    "measured_energy_joules",
)  # fmt: skip
"""Sums that the table is made of; its ratios are sums over sums of them."""
LOW_USE: Final = Decimal("0.4")
"""Two deployments may be put together where each is used less than this: the larger one has room for both."""
MOST_ROWS: Final = 60
KEPT: Final = "in at"
"""What is looked at that goes along when a row is chosen."""
HEADS: Final = (
    ("Deployment", ""), ("Used", "busy ÷ paid accelerator-hours"), ("Idle", ""), ("Idle %", "idle cost ÷ its cost"),
    ("Unavailable", ""), ("Untracked", ""), ("Coverage", "tokens that we saw ÷ tokens that the engine counted"),
    ("$/h", "cost per accelerator-hour"), ("Busy from", ""), ("Energy", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """What a deployment is, and where what is known of its hours came from.

    Attributes:
        model: None for accelerators under contract that nothing took.
        sources: where busy time came from, by how many hours.
    """

    model: str | None
    accelerator: str | None
    engine: str | None
    region: str | None
    environment: str | None
    pool: str | None = None
    sources: tuple[tuple[str, int], ...] = ()

    @property
    def words(self) -> str:
        """`qwen3-8b on H100 · vllm · us-oh`."""
        if self.model is None:
            return "under contract, and no deployment took it"
        chip = fmt.accelerator(self.accelerator) if self.accelerator else "unknown accelerators"
        return " · ".join([f"{self.model} on {chip}", *(told for told in (self.engine, self.region) if told)])


@dataclass(frozen=True, slots=True)
class Hint:
    """Two deployments that one set of accelerators could serve; `stays` has more of them, `goes` costs `saves_usd`."""

    stays: str
    goes: str
    model: str
    accelerator: str
    busy_hours: tuple[Decimal, Decimal]
    paid_hours: tuple[Decimal, Decimal]
    saves_usd: Decimal
    apart: tuple[str, ...]

    @property
    def together(self) -> Decimal:
        """How much of the accelerators that stay both would use."""
        return sum(self.busy_hours, Decimal(0)) / self.paid_hours[0]


def ratio(row: Row, top: str, bottom: str) -> Decimal | None:
    """Sum over sum; None where either is unknown."""
    over, under = row[top], row[bottom]
    return Decimal(over) / Decimal(under) if over is not None and under else None


def summed(rows: Iterable[Row]) -> list[Row]:
    """Rows of the same deployment as one; a sum of nothing known is unknown."""
    found: dict[str | None, Row] = {}
    for row in rows:
        mine = found.setdefault(row["deployment"], {"deployment": row["deployment"], **dict.fromkeys(WASTE)})
        for name in WASTE:
            if row[name] is not None:
                mine[name] = row[name] + (mine[name] or 0)
    return list(found.values())


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """Those that have accelerators, most idle cost first."""
    own = [row for row in rows if row["accelerator_hours"] is not None]
    return sorted(own, key=lambda row: (-(row["idle_cost_usd"] or Decimal(0)), row["deployment"] or ""))


def hints(rows: Sequence[Row], about: Mapping[str, About]) -> list[Hint]:
    """Pairs of the same model on the same accelerator, each used less than `LOW_USE`.

    Each deployment is in one hint at most, the one that saves most first. Deployments of one pool share already.
    """
    able = [row for row in rows if row["deployment"] in about and _is_low(row, about[row["deployment"]])]
    found = [hint for one, other in combinations(able, 2) if (hint := _hint(one, other, about))]
    kept: list[Hint] = []
    taken: set[str] = set()
    for hint in sorted(found, key=lambda hint: (-hint.saves_usd, hint.stays, hint.goes)):
        if not taken & {hint.stays, hint.goes}:
            kept.append(hint)
            taken |= {hint.stays, hint.goes}
    return kept


def _is_low(row: Row, about: About) -> bool:
    use = ratio(row, "busy_accelerator_hours", "accelerator_hours")
    return about.model is not None and about.accelerator is not None and use is not None and use < LOW_USE


def _hint(one: Row, other: Row, about: Mapping[str, About]) -> Hint | None:
    this, that = about[one["deployment"]], about[other["deployment"]]
    if (this.model, this.accelerator) != (that.model, that.accelerator):
        return None
    if this.pool is not None and this.pool == that.pool:
        return None
    pair = sorted((one, other), key=lambda row: (-row["accelerator_hours"], row["deployment"]))
    apart = [name for name in ("region", "environment", "engine") if getattr(this, name) != getattr(that, name)]
    return Hint(
        stays=pair[0]["deployment"], goes=pair[1]["deployment"], model=str(this.model),
        accelerator=str(this.accelerator), busy_hours=(_busy(pair[0]), _busy(pair[1])),
        paid_hours=(pair[0]["accelerator_hours"], pair[1]["accelerator_hours"]),
        saves_usd=pair[1]["capacity_cost_usd"] or Decimal(0), apart=tuple(apart),
    )  # fmt: skip


def _busy(row: Row) -> Decimal:
    return row["busy_accelerator_hours"] or Decimal(0)


def table(
    rows: Sequence[Row], total: Row, about: Mapping[str, About], place: Place,
    opened: Callable[[Any, str, str | None], Component],
) -> Component:  # fmt: skip
    """Deployments, worst first, and the total.

    Args:
        rows: from `worst_first`.
        total: the same sums over all of them.
        about: what each is.
        place: what is shown; a row narrows it.
        opened: a face as a link that opens the derivation of a measure, of a deployment or of all (None).
    """
    found = hints(rows, about)
    marked = {name: hint for hint in found for name in (hint.stays, hint.goes)}
    lines = [_line(row, about, marked, place, opened) for row in rows[:MOST_ROWS]]
    if rest := rows[MOST_ROWS:]:
        (one,) = summed({**row, "deployment": None} for row in rest)
        lines.append(html.Tr([html.Th(f"{len(rest)} more", scope="row"), *_numbers(one, None), html.Td(), html.Td()]))
    heads = [html.Th(words, scope="col", title=says or None) for words, says in HEADS]
    sums = _numbers(total, lambda face, name: opened(face, name, None))
    foot = html.Tr([html.Th("Total", scope="row"), *sums, html.Td(), html.Td(_energy(total))])
    made = html.Table([html.Thead(html.Tr(heads)), html.Tbody(lines), html.Tfoot(foot)], className="wasteful")
    return html.Div([html.Div(made, className="scroll"), *map(_told, found)])


def _line(
    row: Row, about: Mapping[str, About], marked: Mapping[str, Hint], place: Place,
    opened: Callable[[Any, str, str | None], Component],
) -> Component:  # fmt: skip
    name = row["deployment"]
    what = about.get(name or "")
    face = [html.Span(label("deployment", name), className="name"), html.Small(what.words if what else "")]
    first: list[Any] = [link(face, place.toggled(deployment=name).href(), title=f"Show only {name}", **data(keep=KEPT))]
    if name in marked:
        first.append(html.Span("consolidate", className="tag"))
    selected = place.view.chosen("deployment") == (name,)
    counts = what.sources if what else ()
    said = ", ".join(f"{count:,} h by {source}" for source, count in counts)
    return html.Tr(
        [html.Th(first, scope="row"), *_numbers(row, lambda face, measure: opened(face, measure, name)),
         html.Td(_source(counts), title=said or None, className="source"), html.Td(_energy(row), className="source")],
        className="selected" if selected else "",
    )  # fmt: skip


def _numbers(row: Row, opened: Callable[[Any, str], Component] | None) -> list[Component]:
    use = ratio(row, "busy_accelerator_hours", "accelerator_hours")
    share = ratio(row, "idle_cost_usd", "capacity_cost_usd")
    seen = ratio(row, "metered_tokens", "engine_tokens")
    rate = ratio(row, "capacity_cost_usd", "accelerator_hours")
    bar = html.I(className="bar", style={"--share": f"{min(use or Decimal(0), Decimal(1)):.1%}"}, **aria(hidden="true"))

    def cell(measure: str, text: str, title: str | None, className: str = "", before: Any = None) -> Component:  # noqa: N803 - as Dash spells it
        face: Any = opened(text, measure) if opened is not None and text != fmt.UNKNOWN else text
        return html.Td([before, face] if before is not None else face, title=title, className=className)

    def usd(measure: str, className: str = "") -> Component:  # noqa: N803 - as Dash spells it
        return cell(measure, fmt.usd(row[measure]), fmt.usd_exact(row[measure]), className)

    busy = f"{hours(row['busy_accelerator_hours'])} of {hours(row['accelerator_hours'])}"
    return [
        cell("utilisation_ratio", fmt.percent(use, 0), busy, "use", bar),
        usd("idle_cost_usd", "idle"),
        cell("idle_ratio", fmt.percent(share, 0), None),
        usd("unavailable_cost_usd"),
        usd("untracked_cost_usd"),
        cell("coverage_ratio", fmt.percent(seen), None, "low" if seen is not None and seen < Decimal("0.95") else ""),
        cell("accelerator_hour_usd", fmt.usd(rate), None),
    ]


def _source(counts: Sequence[tuple[str, int]]) -> str:
    """Where busy time came from: `engine`, `calls`, or the share of hours of the one that told most."""
    if not counts:
        return fmt.UNKNOWN
    (source, most), whole = counts[0], sum(count for _, count in counts)
    return source if most == whole else f"{fmt.percent(Decimal(most) / whole, 0)} {source}"


def _energy(row: Row) -> str:
    """`measured`, `modelled`, or how much of it was measured."""
    if not row["energy_joules"]:
        return fmt.UNKNOWN
    share = Decimal(row["measured_energy_joules"] or 0) / Decimal(row["energy_joules"])
    return "modelled" if not share else "measured" if share >= 1 else f"{fmt.percent(share, 0)} measured"


def _told(hint: Hint) -> Component:
    """The arithmetic of a hint, in a line that opens."""
    chip, percent = fmt.accelerator(hint.accelerator), fmt.percent(LOW_USE, 0)
    uses = [fmt.percent(busy / paid, 0) for busy, paid in zip(hint.busy_hours, hint.paid_hours, strict=True)]
    (busy_1, busy_2), (paid_1, _) = map(hours, hint.busy_hours), map(hours, hint.paid_hours)
    body = [
        html.P(f"Same model, {hint.model}, on the same accelerator, {chip}; each used less than {percent}: "
               f"{hint.stays} {uses[0]}, {hint.goes} {uses[1]}."),
        html.P(f"Busy {busy_1} + {busy_2} ÷ {paid_1} paid for {hint.stays} = {fmt.percent(hint.together, 0)} "
               "of what stays.", className="formula"),
        html.P(f"Without {hint.goes} its {fmt.usd_exact(hint.saves_usd)} of this period would not be paid. It is a "
               "mean over the period: look at the busiest hours before you move anything."),
    ]  # fmt: skip
    if hint.apart:
        body.append(html.P(f"They differ in {' and '.join(hint.apart)}."))
    face = [html.Span("Consolidate", className="tag"), html.Bdi(hint.goes), " into ", html.Bdi(hint.stays), ": ",
            html.B(f"up to {fmt.usd(hint.saves_usd)}"), html.Span(" · how", className="quiet")]  # fmt: skip
    return popover(face, body, className="hint")

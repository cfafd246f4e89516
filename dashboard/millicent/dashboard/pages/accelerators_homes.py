"""What a model costs on each kind of own hardware, as values: asked once, then shown as bars, table and sentence.

A home is a model on an accelerator, served by an engine at a precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from millicent.dashboard import charts
from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.pages.figures import OWN, Figure, own, sums_of
from millicent.dashboard.pages.requests_table import ENGINES
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import HARDWARE_FILTERS
from millicent.dashboard.tables import LOW_SAMPLE_TOKENS
from millicent.warehouse.metrics import DICTIONARY, MTOK
from millicent.warehouse.query import Filter, Query, ratio
from millicent.warehouse.record import IDLE
from millicent.warehouse.tables import OF_DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from millicent.dashboard.pages.accelerators_place import Per, Place
    from millicent.warehouse.query import Basis
    from millicent.warehouse.store import Warehouse

Row = dict[str, Any]

KEY: Final = ("model", "accelerator", "engine", "precision")
"""What a home is told apart by."""
COST: Final[dict[Per, str]] = {"total": "cost_per_mtok_usd", "output": "cost_per_output_mtok_usd"}
LIST: Final[dict[Per, str]] = {"total": "list_cost_per_mtok_usd", "output": "list_cost_per_output_mtok_usd"}
TOKENS: Final[dict[Per, str]] = {"total": "priced_tokens", "output": "priced_output_tokens"}
PER_JOULE: Final[dict[Per, str]] = {"total": "tokens_per_joule", "output": "output_tokens_per_joule"}
COUNTED: Final[dict[Per, str]] = {"total": "input + output", "output": "output only"}
SHORT: Final[dict[Per, str]] = {"total": "in + out", "output": "output"}
"""The denominator in words, and where there is little room."""
PARTS: Final = ("hardware_cost_usd", "untracked_cost_usd", "unavailable_cost_usd", "idle_cost_usd")
"""What the cost of a home is made of, as it is stacked."""
SPARE: Final = "Reserved, not taken"
MEASURES: Final = (
    "capacity_cost_usd", *PARTS, *COST.values(), *LIST.values(), *TOKENS.values(), *PER_JOULE.values(), "list_cost_usd",
    "own_tokens", "own_output_tokens", "calls", "unpriced_calls", "idle_ratio", "utilisation_ratio",
    "tokens_per_accelerator_second", "gco2e_g_per_mtok", "accelerator_hour_usd", "coverage_ratio", "energy_wh",
    "gco2e_g", "measured_energy_ratio",
)  # fmt: skip


RATES: Final = ("accelerator_hour_usd", "fixed_cost_usd", "hosting_cost_usd", "energy_cost_usd", "capacity_cost_usd",
                "accelerator_hours")  # fmt: skip
ENERGY: Final = ("energy_wh", "gco2e_g", "gco2e_market_g", "gco2e_g_per_mtok", "tokens_per_joule",
                 "measured_energy_ratio", "own_tokens")  # fmt: skip
ALL: Final = tuple(dict.fromkeys((*MEASURES, *RATES, *ENERGY)))
"""Every measure of the page."""
RATIOS: Final = tuple(name for name in ALL if DICTIONARY[name].numerator)
SUMS: Final = tuple(dict.fromkeys(part for name in ALL for part in sums_of(DICTIONARY[name])))
FINEST: Final = (*KEY, "deployment")
"""The dimensions that everything on the page is added up from."""


@dataclass(frozen=True, slots=True)
class Home:
    """A model on one kind of hardware.

    Attributes:
        told: its measures by name; None is unknown, or cannot be told with the filters of the page.
        cheapest: no other home of the model costs less per token, and there is another.
        low: so few tokens that its costs per token say little.
    """

    told: Row
    cheapest: bool = False
    low: bool = False

    @property
    def hardware(self) -> str:
        """The accelerator as people say it; hours that are only reserved have none."""
        spare = self.told["accelerator"] is None and self.unserved
        return SPARE if spare else hardware_label("accelerator", self.told["accelerator"])

    @property
    def software(self) -> str:
        """Engine and precision: `vLLM, FP8`."""
        found = (self.told["engine"], self.told["precision"])
        return ", ".join(hardware_label(name, value) for name, value in zip(KEY[2:], found, strict=True) if value)

    @property
    def model(self) -> str:
        """Its model; that of none is a reservation nobody uses."""
        return hardware_label("model", self.told["model"])

    @property
    def unserved(self) -> bool:
        """Whether it served no token that we know of."""
        return not self.told["own_tokens"]

    @property
    def undeclared(self) -> bool:
        """Whether it served calls and nobody told what it costs."""
        return not self.unserved and self.told["capacity_cost_usd"] is None

    def cost(self, per: Per) -> Decimal | None:
        """USD per million tokens, idle included."""
        found: Decimal | None = self.told[COST[per]]
        return found

    def busy(self, per: Per) -> Decimal | None:
        """USD per million tokens of busy time alone."""
        return self.part("hardware_cost_usd", per)

    def part(self, name: str, per: Per) -> Decimal | None:
        """What a part of its cost adds to the cost per million tokens."""
        amount, tokens = self.told[name], self.told[TOKENS[per]]
        return amount * MTOK / tokens if amount is not None and tokens else None

    def figure(self, measure: str, basis: Basis = "effective") -> Figure:
        """One of its measures, as it can be opened."""
        return Figure.of(measure, basis, **{name: self.told[name] for name in KEY})


def reader_of(warehouse: Warehouse, place: Place) -> Reader | None:
    """Who reads a place; None before the first call and the first declaration.

    Raises:
        PermissionError: nobody is asking, or somebody who may not.
    """
    return Reader.of(warehouse, own(place.view), declared=True)


def hardware_label(dimension: str, value: str | None) -> str:
    """How a value is called on a page of own hardware, where unknown is not an API."""
    if value is None:
        return {"team": "Unattributed", "model": "No model"}.get(dimension, "Unknown")
    if dimension == "precision":
        return value.upper()
    return ENGINES.get(value, value) if dimension == "engine" else label(dimension, value)


def askable(names: Iterable[str], filtered: Iterable[str]) -> tuple[str, ...]:
    """Those of the measures that can be told by what is filtered: facts of the hardware belong to no team."""
    if set(filtered) <= {*OF_DEPLOYMENTS, "cost_type"}:
        return tuple(names)
    return tuple(name for name in names if not any(DICTIONARY[part].of_deployments for part in _parts(name)))


def _parts(name: str) -> tuple[str, ...]:
    measure = DICTIONARY[name]
    return (name, *filter(None, (measure.numerator, measure.denominator)))


def homes(reader: Reader, per: Per) -> list[Home]:
    """Each model on each kind of hardware, with its costs, as `marked` orders them."""
    rows = told(reader, MEASURES, *KEY)
    return marked([Home(row) for row in rows if row["calls"] or row["capacity_cost_usd"]], per)


def told(reader: Reader, names: tuple[str, ...], *by: str) -> list[Row]:
    """Measures over the period by dimensions, as rows; None for those that cannot be told with these filters.

    The first of `FINEST` is all that is ever asked: what is coarser is added up from it.
    """
    filtered = [name for name, _ in reader.view.filters]
    finest = reader.over(askable(SUMS, filtered), *FINEST)
    return _rows(_added(finest, by), names, askable(names, filtered), by)


def before(reader: Reader, names: tuple[str, ...]) -> Row:
    """Measures over the period that is compared with; nothing where none is."""
    known = askable(names, [name for name, _ in reader.view.filters])
    frame = reader.before(known)
    return _rows(frame, names, known, ())[0] if frame is not None else {}


def _added(frame: pl.DataFrame, by: tuple[str, ...]) -> pl.DataFrame:
    """Sums by fewer dimensions, unknown where nothing is known of them, with the ratios that they make."""
    sums = [name for name in frame.columns if name not in FINEST]
    add = [pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in sums]
    found = frame.group_by(by, maintain_order=True).agg(add) if by else frame.select(add)
    ratios = [one for one in RATIOS if {DICTIONARY[one].numerator, DICTIONARY[one].denominator} <= set(sums)]
    return found.with_columns(ratio(name) for name in ratios)


def _rows(frame: pl.DataFrame, names: tuple[str, ...], known: tuple[str, ...], by: tuple[str, ...]) -> list[Row]:
    missing = dict.fromkeys(name for name in names if name not in known)
    return [row | missing for row in frame.select(*by, *dict.fromkeys(known)).iter_rows(named=True)]


def marked(homes: Sequence[Home], per: Per) -> list[Home]:
    """Homes, those of a model together and cheapest first; models that cost most first, unused hardware last."""
    spent: dict[str | None, Decimal] = {}
    for home in homes:
        spent[home.told["model"]] = spent.get(home.told["model"], Decimal(0)) + (home.told["capacity_cost_usd"] or 0)
    few = {id(home): (home.told["own_tokens"] or 0) < LOW_SAMPLE_TOKENS for home in homes}
    costs: dict[str | None, list[Decimal]] = {}
    for home in homes:
        if (cost := home.cost(per)) is not None and not few[id(home)]:
            costs.setdefault(home.told["model"], []).append(cost)
    least = {model: min(found) for model, found in costs.items() if len(found) > 1}

    def place(home: Home) -> tuple[Any, ...]:
        model, cost = home.told["model"], home.cost(per)
        return (model is None, -spent[model], str(model), cost is None, cost or 0, *(str(home.told[k]) for k in KEY))

    return [
        Home(home.told, cheapest=not few[id(home)] and home.cost(per) == least.get(home.told["model"], -1),
             low=few[id(home)])
        for home in sorted(homes, key=place)
    ]  # fmt: skip


def choices(reader: Reader) -> dict[str, list[dict[str, str]]]:
    """What can be chosen of each filter: what own hardware has in the period, most expensive first."""
    return {name: [_choice(name, value) for value in _values(reader, name)] for name in HARDWARE_FILTERS}


def colours(reader: Reader, dimension: str) -> dict[str | None, str]:
    """The colours of a dimension, as on every page."""
    if dimension not in {"accelerator", "deployment"}:
        return reader.colours(dimension)
    return charts.colours(_values(reader, dimension)) | {None: charts.UNKNOWN_COLOUR}


def _choice(name: str, value: str | None) -> dict[str, str]:
    text = hardware_label(name, value)
    return {"value": value or "", "label": text, "search": f"{value or ''} {text}"}


def _values(reader: Reader, name: str) -> list[str | None]:
    """Values of a dimension, whatever is filtered, most expensive first."""
    period = reader.window.period
    by = OF_DEPLOYMENTS if name in OF_DEPLOYMENTS else (name,)
    asked = Query(measures=("capacity_cost_usd",), period=period, dimensions=by, filters=(Filter(*OWN),))
    frame = reader.warehouse.ask(reader.tenant, asked).frame
    ranked = frame.group_by(name).agg(pl.col("capacity_cost_usd").sum()).sort(
        "capacity_cost_usd", name, descending=[True, False], nulls_last=True
    )  # fmt: skip
    return [value for value in ranked[name].to_list() if value != IDLE]


def has_hardware(reader: Reader) -> bool:
    """Whether the tenant declared a deployment, or own hardware served any call of the period."""
    if reader.warehouse.control.deployments(reader.tenant):
        return True
    served = Filter("billing", ("self_hosted",))
    asked = Query(measures=("calls",), period=reader.window.period, filters=(served,))
    return bool(reader.warehouse.ask(reader.tenant, asked).frame["calls"].item())


def headline(found: Sequence[Home], total: Row, place: Place) -> list[str | tuple[str, Figure]]:
    """What it comes to, as sentences; a figure is a pair of its text and itself."""
    per = place.per
    said: list[str | tuple[str, Figure]] = []
    cost = total[COST[per]]
    whose = "Calls of these teams cost " if place.view.chosen("team") else "Own hardware cost "
    said += [whose, (fmt.usd(total["capacity_cost_usd"]), Figure.of("capacity_cost_usd"))]
    if cost is not None:
        said += [", or ", (fmt.usd(cost), Figure.of(COST[per])), f" per 1M tokens ({COUNTED[per]})"]
    if total["idle_cost_usd"] is not None and total["idle_ratio"] is not None:
        idle = (fmt.usd(total["idle_cost_usd"]), Figure.of("idle_cost_usd"))
        said += ["; ", idle, f" of it, {fmt.percent(total['idle_ratio'], 0)}, paid for accelerators that stood idle"]
    said.append(". ")
    return said + _compared(found, place)


def _compared(found: Sequence[Home], place: Place) -> list[str | tuple[str, Figure]]:
    """Where the model that costs most is cheapest, and where it is dearest."""
    per = place.per
    best = next((home for home in found if home.cheapest), None)
    if best is None:
        return []
    rivals = [home for home in found if home.told["model"] == best.told["model"] and not home.low]
    worst = max((home for home in rivals if home.cost(per) is not None), key=lambda home: home.cost(per) or 0)
    low, high = best.cost(per), worst.cost(per)
    if low is None or not high or low == high:
        return []
    saved = fmt.percent(1 - low / high, 0)
    return [f"{best.model} is cheapest on {best.hardware}, at ", (fmt.usd(low), best.figure(COST[per])),
            f" per 1M tokens, {saved} less than on {worst.hardware}", *_against_list(best, place), "."]  # fmt: skip


def _against_list(home: Home, place: Place) -> list[str | tuple[str, Figure]]:
    there, here = home.told[LIST[place.per]], home.cost(place.per)
    if not there or here is None:
        return []
    apart = fmt.percent(abs(1 - here / there), 0)
    return [f" and {apart} {'less' if here <= there else 'more'} than the same calls at a provider (",
            (fmt.usd(there), home.figure(LIST[place.per])), ")"]  # fmt: skip

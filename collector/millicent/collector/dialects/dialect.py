"""What a dialect is: one way of writing down a call, as a row of data with a few expressions.

Expressions of `marks`, `unscoped`, `word`, `not_calls` and `derived` see the decoded columns (`signal`, `scope`,
`scope_version`, `name`, `kind`, `status_code`, ...) and attributes under their own names. Those of `excludes_cache`,
`excludes_reasoning`, `unbelievable` and `flags` are the usage rule, which is run again on stored rows: they see
counters through `raw`, and the stored columns `provider`, `model`, `scope`, `scope_version`, `operation`, `status` and
`streaming`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from millicent.collector.decode import UNIT
from millicent.pricing.units import UNITS

Signal = Literal["span", "log", "metric"]
Form = Literal["json", "python"]

RAW: Final = "raw:"
"""In front of a counter's name where it stands beside the columns of the record."""
IN: Final = "#"
"""Between an attribute and the place inside it: `langfuse.observation.usage_details#prompt_tokens`."""

CALL_OPERATIONS: Final[Mapping[str, str]] = {
    "chat": "chat",
    "text_completion": "text_completion",
    "generate_content": "generate_content",
    "embeddings": "embeddings",
    "completion": "text_completion",
    "embedding": "embeddings",
    "responses": "chat",
}
"""Operations that are one physical call, by every spelling in use; any other is a roll-up, a tool or a look-up."""


def raw(*keys: str) -> pl.Expr:
    """A counter as it came: the first of `keys` that did."""
    return pl.coalesce(*(pl.col(RAW + key) for key in keys))


def told(*keys: str) -> pl.Expr:
    """An attribute as it came: the first of `keys` that did."""
    return pl.coalesce(*(pl.col(key) for key in keys))


def any_told(*keys: str) -> pl.Expr:
    """Whether any of these attributes came."""
    return pl.any_horizontal(pl.col(key).is_not_null() for key in keys)


def any_raw(*keys: str) -> pl.Expr:
    """Whether any of these counters came."""
    return any_told(*(RAW + key for key in keys))


OWN_UNITS: Final[Mapping[str, tuple[str, ...]]] = {unit.key: (UNIT + unit.key,) for unit in UNITS}
"""Billable units beside tokens, by our own attributes, which anybody may set on any span."""


def with_units(*tables: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """`OWN_UNITS`, and behind them what else carries a unit."""
    return {
        name: tuple(dict.fromkeys((*keys, *(key for table in tables for key in table.get(name, ())))))
        for name, keys in OWN_UNITS.items()
    }


NEVER: Final = pl.lit(False)
ALWAYS: Final = pl.lit(True)


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One way of writing usage. `revision` goes up when the usage rule changes, so that old rows can be read again.

    Attributes:
        id: Stored with every row.
        revision: Of the usage rule.
        about: Who writes it and what to know, for the reference.
        rank: How good its numbers are when two rows tell of one call: the lower, the richer.
        scope: Regular expression on the name of the instrumentation scope.
        marks: Which rows of that scope are of this dialect; of several dialects of one scope the first takes the row.
        unscoped: Rows that are of this dialect although no dialect knows their scope.
        signals: What it comes as.
        facts: Column of the record → attributes that carry it, first one present wins.
        usage: Column of tokens → counters that carry it, first one present wins, never added.
        units: Other billable unit → counters that carry it, first one present wins.
        total: Counters of everything together, which prove what the others leave out.
        input_rest: Counters of input that stands beside the others and is added.
        output_rest: The same of output.
        absent_is_zero: Columns that are left out when they are 0; absence of any other means unknown.
        excludes_cache: Whether input is told without its cached part; null: it depends, and nobody says.
        excludes_reasoning: Whether output is told without reasoning.
        unbelievable: Column → when what is told of it is known to be wrong, which makes it unknown.
        flags: Doubt to store with the row → when.
        word: What a row says it is; the operation or, where there is none, the name.
        reason: What kind of word that is, in the reason of a row that is no call.
        calls: Words that are one physical call → operation stored.
        not_calls: Reason → rows that are none although their word is.
        payloads: Attributes whose text holds counters or facts, and how it is written.
        derived: Column → expression that replaces the fact.
        wraps: Whether a row may stand around calls that count themselves, and then only tags them.
        engine: Engine whose own view of a call this is.
    """

    id: str
    revision: int
    about: str
    rank: int
    facts: Mapping[str, tuple[str, ...]]
    usage: Mapping[str, tuple[str, ...]]
    scope: str | None = None
    marks: pl.Expr = ALWAYS
    unscoped: pl.Expr | None = None
    units: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: OWN_UNITS)
    signals: tuple[Signal, ...] = ("span", "metric")
    total: tuple[str, ...] = ()
    input_rest: tuple[str, ...] = ()
    output_rest: tuple[str, ...] = ()
    absent_is_zero: tuple[str, ...] = ()
    excludes_cache: pl.Expr | None = NEVER
    excludes_reasoning: pl.Expr = NEVER
    unbelievable: Mapping[str, pl.Expr] = field(default_factory=dict)
    flags: Mapping[str, pl.Expr] = field(default_factory=dict)
    word: pl.Expr | None = None
    reason: str = "operation"
    calls: Mapping[str, str] = field(default_factory=lambda: CALL_OPERATIONS)
    not_calls: Mapping[str, pl.Expr] = field(default_factory=dict)
    payloads: Mapping[str, Form] = field(default_factory=dict)
    derived: Mapping[str, pl.Expr] = field(default_factory=dict)
    wraps: bool = False
    engine: str | None = None

    @property
    def rule(self) -> str:
        """Stored with every row that this dialect produced."""
        return f"{self.id}/{self.revision}"

    @property
    def counters(self) -> tuple[str, ...]:
        """Every counter that the usage rule reads, each once."""
        asked = tuple(name.removeprefix(RAW) for name in self.rule_roots)
        parts = (*self.usage.values(), *self.units.values(), self.total, self.input_rest, self.output_rest, asked)
        return tuple(dict.fromkeys(key for keys in parts for key in keys))

    @property
    def roots(self) -> tuple[str, ...]:
        """Decoded columns that its expressions need, whether they came or not."""
        expressions = (*self.not_calls.values(), *self.derived.values(), *(() if self.word is None else (self.word,)))
        return tuple(dict.fromkeys(name for expression in expressions for name in expression.meta.root_names()))

    @property
    def rule_roots(self) -> tuple[str, ...]:
        """Counters, as `raw` names them, that expressions of the usage rule need, whether they came or not."""
        rules = (self.excludes_cache, self.excludes_reasoning, *self.unbelievable.values(), *self.flags.values())
        names = (name for rule in rules if rule is not None for name in rule.meta.root_names())
        return tuple(dict.fromkeys(name for name in names if name.startswith(RAW)))

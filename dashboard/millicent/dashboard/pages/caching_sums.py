"""What caching saved and what it missed: arithmetic over sums, model by model, where each runs.

An API bills cached input at a price of its own: its saving is at list prices, exactly as each call was priced. On own
hardware a cached token weighs less: what is saved is capacity, at the rates of the deployment-hours. What a token cost
uncached, read and written is sum over sum of the period; what has no price counts in no saving.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Target = Literal["best", "60", "80"]
"""Which hit rate is held against that of a feature: the best one with the same model, or a share in percent."""

TARGETS: Final[dict[Target, str]] = {"best": "Best feature", "60": "60%", "80": "80%"}
SUMS: Final = (
    "input_tokens", "cache_read_tokens", "cache_write_tokens", "list_input_usd", "list_cache_read_usd",
    "list_cache_write_usd", "cache_saving_usd", "hardware_input_usd", "hardware_cached_usd",
)  # fmt: skip
BY: Final = ("model", "billing", "price_status")
ENOUGH: Final = Decimal("0.05")
"""Share of a model's input that a feature needs for its hit rate to be held against others."""
NOTHING: Final = Decimal(0)
_PRICE: Final = pl.Decimal(38, 18)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Input of one model at an API, or on own hardware; amounts of a token are in the currency shown.

    Attributes:
        model: its name; None is unknown.
        own: whether it runs on own hardware.
        input_tokens, read_tokens, written_tokens: all input, and of it read from and written to a cache.
        plain_usd, read_usd, write_usd: what a token cost uncached, read and written; None where none was priced.
        saved_usd: what caching saved, premium deducted; None where no price is known.
        premium_usd: what writing cost beyond plain input; 0 where nothing is charged for it.
    """

    model: str | None
    own: bool
    input_tokens: int
    read_tokens: int
    written_tokens: int
    plain_usd: Decimal | None
    read_usd: Decimal | None
    write_usd: Decimal | None
    saved_usd: Decimal | None
    premium_usd: Decimal | None

    @property
    def hit(self) -> Decimal | None:
        """Share of input that came out of a cache."""
        return Decimal(self.read_tokens) / self.input_tokens if self.input_tokens else None

    @property
    def avoided_usd(self) -> Decimal | None:
        """What input read from a cache would have cost more, uncached."""
        return None if self.saved_usd is None or self.premium_usd is None else self.saved_usd + self.premium_usd

    @property
    def reuse(self) -> Decimal | None:
        """Reads among all that was read or written; None where nothing was written."""
        return Decimal(self.read_tokens) / (self.read_tokens + self.written_tokens) if self.written_tokens else None

    @property
    def break_even(self) -> Decimal | None:
        """The `reuse` from which caching pays; 0 where writing costs nothing more; None where prices are unknown."""
        if self.plain_usd is None or self.read_usd is None or self.read_usd >= self.plain_usd:
            return None
        if self.own or self.write_usd is None or self.write_usd <= self.plain_usd:
            return NOTHING
        return (self.write_usd - self.plain_usd) / (self.write_usd - self.read_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """What a feature would have saved on a model at a `target` hit rate."""

    feature: str | None
    model: str | None
    own: bool
    input_tokens: int
    hit: Decimal
    target: Decimal
    missed_usd: Decimal


def homes(frame: pl.DataFrame) -> list[Home]:
    """Models and where they run, most input first.

    Args:
        frame: `SUMS` by `BY`, and by anything else.
    """
    known = frame.filter(pl.col("input_tokens").is_not_null())
    own, priced = pl.col("billing") == "self_hosted", pl.col("price_status").ne_missing("unpriced")
    whole = known.group_by("model", own.fill_null(value=False).alias("own")).agg(
        *(_sum(name) for name in SUMS),
        **{f"listed_{name}": pl.col(name).filter(priced).sum() for name in SUMS[:3]},
    )
    found = [_home(row) for row in whole.iter_rows(named=True)]
    return sorted(found, key=lambda home: (-home.input_tokens, home.model or "", home.own))


def saved(found: Iterable[Home], *, own: bool | None = None) -> Decimal | None:
    """What is saved together; of APIs or of own hardware alone where `own` is told. None where nothing is known."""
    amounts = [home.saved_usd for home in found if own in {None, home.own} and home.saved_usd is not None]
    return sum(amounts, NOTHING) if amounts else None


def premium(found: Iterable[Home]) -> Decimal | None:
    """What writing cost beyond plain input."""
    amounts = [home.premium_usd for home in found if home.premium_usd is not None and not home.own]
    return sum(amounts, NOTHING) if amounts else None


def daily(frame: pl.DataFrame, found: Sequence[Home]) -> pl.DataFrame:
    """Per day: `input_tokens`, `cache_read_tokens`, `cache_write_tokens`; `avoided_usd`, `premium_usd`, `freed_usd`.

    Avoided and premium are of APIs, freed is of own hardware; prices of a token are those of the whole period.

    Args:
        frame: `time`, `BY` and `SUMS`.
        found: `homes` of the period.
    """
    prices = pl.DataFrame(
        {"model": [home.model for home in found], "own": [home.own for home in found],
         "plain": [home.plain_usd for home in found]},
        schema={"model": pl.String, "own": pl.Boolean, "plain": _PRICE},
    )  # fmt: skip
    own = (pl.col("billing") == "self_hosted").fill_null(value=False)
    rows = frame.filter(pl.col("input_tokens").is_not_null()).with_columns(own=own)
    rows = rows.join(prices, on=["model", "own"], how="left", nulls_equal=True)
    listed = ~pl.col("own") & pl.col("price_status").ne_missing("unpriced")
    at_plain = {
        name: (pl.col(f"cache_{name}_tokens").cast(pl.Decimal(38, 0)) * pl.col("plain")).cast(pl.Decimal(38, 12))
        for name in ("read", "write")
    }
    written = pl.col("cache_write_tokens").fill_null(0) > 0
    over = pl.when(listed & written).then(pl.col("list_cache_write_usd").cast(pl.Decimal(38, 12)) - at_plain["write"])
    freed = pl.when(pl.col("own")).then(at_plain["read"] - pl.col("hardware_cached_usd").cast(pl.Decimal(38, 12)))
    rows = rows.with_columns(premium_usd=over, freed_usd=freed)
    net = pl.when(~pl.col("own")).then(pl.col("cache_saving_usd").cast(pl.Decimal(38, 12)))
    rows = rows.with_columns(avoided_usd=net + pl.col("premium_usd").fill_null(0))
    names = (*SUMS[:3], "avoided_usd", "premium_usd", "freed_usd")
    return rows.group_by("time").agg(_sum(name) for name in names).sort("time")


def missed(frame: pl.DataFrame, found: Sequence[Home], target: Target) -> list[Missed]:
    """What features missed, most first: how much more each would have saved at the target.

    Args:
        frame: `SUMS` by feature and `BY`.
        found: `homes` of the period, which tell what a token costs.
        target: the hit rate held against theirs.
    """
    prices = {(home.model, home.own): home for home in found}
    own = (pl.col("billing") == "self_hosted").fill_null(value=False).alias("own")
    rows = (
        frame.filter(pl.col("input_tokens") > 0)
        .group_by("feature", "model", own)
        .agg(_sum("input_tokens"), pl.col("cache_read_tokens").sum())
        .to_dicts()
    )
    best: dict[tuple[str | None, bool], Decimal] = {}
    for row in rows:
        key = row["model"], row["own"]
        whole = prices[key].input_tokens if key in prices else 0
        if whole and row["input_tokens"] >= whole * ENOUGH:
            best[key] = max(best.get(key, NOTHING), Decimal(row["cache_read_tokens"]) / row["input_tokens"])
    told = [_missed(row, prices.get((row["model"], row["own"])), best, target) for row in rows]
    return sorted(filter(None, told), key=lambda one: (-one.missed_usd, one.feature or "", one.model or "", one.own))


def _missed(
    row: dict[str, Any], home: Home | None, best: dict[tuple[str | None, bool], Decimal], target: Target
) -> Missed | None:
    if home is None or home.plain_usd is None or home.read_usd is None or home.read_usd >= home.plain_usd:
        return None
    hit = Decimal(row["cache_read_tokens"]) / row["input_tokens"]
    wanted = best.get((home.model, home.own), NOTHING) if target == "best" else Decimal(target) / 100
    more = max(wanted - hit, NOTHING) * row["input_tokens"]
    if not more:
        return None
    return Missed(
        feature=row["feature"], model=home.model, own=home.own, input_tokens=row["input_tokens"], hit=hit,
        target=wanted, missed_usd=more * (home.plain_usd - home.read_usd),
    )  # fmt: skip


def _home(row: dict[str, Any]) -> Home:
    told = {name: int(row[name] or 0) for name in SUMS[:3]}
    read, written = told["cache_read_tokens"], told["cache_write_tokens"]
    listed = {name: int(row[f"listed_{name}"] or 0) for name in SUMS[:3]}
    both: dict[str, Any] = {
        "model": row["model"], "own": row["own"], "input_tokens": told["input_tokens"], "read_tokens": read,
        "written_tokens": written,
    }  # fmt: skip
    if row["own"]:
        plain = _each(row["hardware_input_usd"], told["input_tokens"] - read)
        cached = row["hardware_cached_usd"]
        freed = None if plain is None or cached is None else read * plain - cached
        return Home(
            **both, plain_usd=plain, read_usd=_each(cached, read), write_usd=None, saved_usd=freed, premium_usd=NOTHING
        )
    whole, of_reads, of_writes = listed.values()
    plain, cost = _each(row["list_input_usd"], whole - of_reads - of_writes), row["list_cache_write_usd"]
    over = None if plain is None or cost is None else cost - of_writes * plain
    return Home(
        **both, plain_usd=plain, read_usd=_each(row["list_cache_read_usd"], of_reads),
        write_usd=_each(cost, of_writes), saved_usd=row["cache_saving_usd"], premium_usd=over if of_writes else NOTHING,
    )  # fmt: skip


def _each(amount: Decimal | None, number: int) -> Decimal | None:
    """What one of `number` costs; None where that is unknown."""
    return amount / number if amount is not None and number > 0 else None


def _sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name)

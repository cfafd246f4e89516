"""What calls cost by the price book of their tenant: the bundled prices in force, and what the tenant added to them.

Bundled prices change with the package that brings them. What an update adds, or changes from its own date on, is taken
at once. Models whose past it would change keep their prices, and names that it would take for a model of other prices
keep theirs, until somebody says yes. Stored amounts never move by it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

import polars as pl
from sqlalchemy import Connection

from millicent.pricing import bundled, snapshot
from millicent.pricing.book import PriceBook
from millicent.pricing.bundled import Found
from millicent.pricing.entries import BookEntry, Charge, FxRate, rank
from millicent.pricing.rates import Entry
from millicent.pricing.snapshot import PriceChange
from millicent.warehouse import price_data, price_entries, price_names
from millicent.warehouse.control import DEFAULT_TENANT, Control
from millicent.warehouse.exchange import Rate, rates
from millicent.warehouse.price_data import Model, PriceData
from millicent.warehouse.price_names import Asked

MOST_BOOKS: Final = 32
"""Books of the past that are kept ready."""


@dataclass(frozen=True, slots=True)
class Update:
    """Installed price data that waits for a yes, because it would change what calls of the past cost.

    Attributes:
        version_from: the last data that was taken whole.
        version_to: the data that is installed.
        changes: past prices that would change; their models keep the prices they have.
        additions: (provider, model) of the models that came with it and are priced already.
    """

    version_from: str
    version_to: str
    changes: tuple[PriceChange, ...]
    additions: tuple[Model, ...]

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are held back."""
        return _models(self.changes)


class Prices:
    """The price books of one installation, by tenant; safe from any thread, up to date with every other process.

    Args:
        control: where entries, price data and what was accepted are kept.
        version: of the installed price data.
        entries: the installed price data; None for what `genai-prices` brings.
    """

    def __init__(
        self, control: Control, version: str = bundled.VERSION, entries: Iterable[Entry] | None = None
    ) -> None:
        self._control = control
        self._lock = threading.RLock()
        self._as_bundled = entries is None
        self._installed = PriceData(version, _bundled() if entries is None else tuple(entries))
        self._stamp: tuple[int, ...] = ()
        self._in_force = ""
        self._books: dict[str, PriceBook] = {}
        self._rates: dict[tuple[str, str], tuple[Rate, ...]] = {}
        self._past: OrderedDict[tuple[str, str], PriceBook] = OrderedDict()
        self._bases: dict[str, PriceBook] = {}
        self._waiting: dict[str, Update | None] = {}
        self._asked: dict[str, set[Asked]] = {}
        self._take()

    def price(self, usages: pl.DataFrame) -> pl.DataFrame:
        """What usages cost by the present book of their `tenant`; see `PriceBook.price`.

        Raises:
            ValueError: as `PriceBook.price`, or a row has no tenant.
        """
        if "tenant" not in usages.columns or usages["tenant"].null_count():
            raise ValueError("a usage has no tenant: each tenant has a price book of its own; tell the column `tenant`")
        with self._lock:
            self._refresh()
            books = {tenant: self._present(tenant) for tenant in usages["tenant"].unique().to_list()}
            self._remember_names(usages)
        apart: dict[int, list[str]] = {}  # equal versions price alike, but name the entries of another tenant
        for tenant, book in books.items():
            apart.setdefault(id(book), []).append(tenant)
        if len(apart) <= 1:
            return (next(iter(books.values())) if books else self.base()).price(usages)
        rows = usages.with_row_index("_at")
        priced = []
        for tenants in apart.values():
            mine = rows.filter(pl.col("tenant").is_in(tenants))
            priced.append(books[tenants[0]].price(mine).with_columns(mine["_at"]))
        return pl.concat(priced).sort("_at").drop("_at")

    def book(self, tenant: str, known_at: datetime | None = None) -> PriceBook:
        """The price book of a tenant as it is now, or by what was known at an instant."""
        if known_at is not None:
            return self._known(tenant, known_at)
        with self._lock:
            self._refresh()
            return self._present(tenant)

    def base(self) -> PriceBook:
        """The bundled prices in force, without anything that tenants added."""
        with self._lock:
            self._refresh()
            return self._base(self._in_force)

    def version(self, tenant: str) -> str:
        """Version of the book that prices new calls of a tenant."""
        return self.book(tenant).version

    def rates(self, tenant: str, currency: str, known_at: datetime | None = None) -> tuple[Rate, ...]:
        """What one unit of a currency is in USD, by instant: by the present book of a tenant, or as was known then."""
        if known_at is not None:
            with self._control.begin() as connection:
                return _rates(self._known_then(connection, tenant, known_at), currency)
        with self._lock:
            self._refresh()
            key = (tenant, currency)
            if key not in self._rates:
                self._rates[key] = _rates(self._own(tenant), currency)
            return self._rates[key]

    def of_version(self, tenant: str, version: str) -> PriceBook | None:
        """The very book that a `price_version` on a tenant's call names; None when it was never kept."""
        with self._lock:
            key = (tenant, version)
            if key not in self._past:
                book = self._remade(tenant, version)
                if book is None:
                    return None
                self._past[key] = book
                if len(self._past) > MOST_BOOKS:
                    self._past.popitem(last=False)
            self._past.move_to_end(key)
            return self._past[key]

    def pending(self) -> Update | None:
        """The installed price data if some of it waits for a yes; as of when it was first asked for."""
        with self._control.begin() as connection:
            version = price_data.in_force(connection)
        if version is None or version == self._installed.version:
            return None
        with self._lock:
            if version not in self._waiting:
                self._waiting = {version: self._compared(version)}
            return self._waiting[version]

    def proposed(self, tenant: str) -> PriceBook:
        """The book that a tenant would have after `accept`."""
        with self._lock:
            return _with_own(self._base(self._installed.version), self._own(tenant))

    def accept(self, actor: str) -> Update | None:
        """Say yes to what is pending: calls are priced by the installed data from now on. Stored amounts do not move.

        Returns:
            What was accepted; None when nothing was pending.
        """
        with self._lock:
            update = self.pending()
            if update is None:
                return None
            now = datetime.now(UTC)
            with self._control.begin() as connection:
                price_data.keep(connection, self._installed, now)
                price_data.put_in_force(connection, self._installed.version, actor, now)
            told = {"from": update.version_from, "to": update.version_to, "models": [list(m) for m in update.models]}
            self._control.note(DEFAULT_TENANT, actor, "price.update", told)
            return update

    def _compared(self, version: str) -> Update | None:
        """What the installed price data would change of a version in force that holds some of it back."""
        with self._control.begin() as connection:
            state = price_data.state(connection, version)
            whole = price_data.taken_whole(connection)
            before = price_data.state(connection, whole) if whole else None
        if state is None or state.whole:
            return None
        now, offered = datetime.now(UTC), self._installed.entries
        changes = snapshot.changes(state.entries, offered, now)
        for _, more in price_names.moved(state.names, state.entries, offered, now):
            changes += [change for change in more if change not in changes]
        added = snapshot.additions(before.entries, offered) if before else []
        return Update(whole or state.version, self._installed.version, tuple(changes), tuple(added))

    def _take(self) -> None:
        """Put in force what is installed, less the models whose past it would change."""
        now = datetime.now(UTC)
        with self._control.begin() as connection:
            version = price_data.in_force(connection)
            self._installed = price_data.named(connection, self._installed)
            if version == self._installed.version:
                return
            price_data.keep(connection, self._installed, now)
            was = price_data.state(connection, version) if version else None
            names = price_names.remembered(connection, version) if version else {}
            taken = self._installed if was is None else _taken(was, names, self._installed, now)
            if taken == was:
                return
            taken = price_data.named(connection, taken)
            price_data.keep(connection, taken, now)
            price_data.put_in_force(connection, taken.version, None, now)
        if was is not None:
            held = [list(model) for model in taken.held]
            told = {"from": was.version, "to": taken.version, "held": held}
            self._control.note(DEFAULT_TENANT, "millicent", "price.update", told)

    def _remember_names(self, usages: pl.DataFrame) -> None:
        """Keep what the names in `usages` are taken for by the data in force."""
        version = self._in_force
        asked = price_names.asked_in(usages)
        if self._asked.get(version, set()).issuperset(asked):
            return
        with self._control.begin() as connection:
            known = self._asked.setdefault(version, set(price_names.remembered(connection, version)))
            new = asked - known if len(known) < price_names.MOST_NAMES else set[Asked]()
            price_names.remember(connection, version, {one: found for one in new if (found := bundled.find(*one))})
            known |= new

    def _refresh(self) -> None:
        with self._control.begin() as connection:
            stamp = (*price_entries.stamp(connection), price_data.stamp(connection))
            if stamp != self._stamp:
                self._in_force = price_data.in_force(connection) or self._installed.version
                self._stamp = stamp
                self._books.clear()
                self._rates.clear()

    def _present(self, tenant: str) -> PriceBook:
        if tenant not in self._books:
            base, own = self._base(self._in_force), self._own(tenant)
            book = _with_own(base, own)
            if book is not base:
                ids = [entry.id for entry in own if entry.id is not None]
                with self._control.begin() as connection:
                    price_data.remember(connection, tenant, book.version, base.version, ids, datetime.now(UTC))
            self._books[tenant] = book
        return self._books[tenant]

    def _own(self, tenant: str) -> list[BookEntry]:
        """Live entries that change what a call costs; charges are not of single calls."""
        return [entry for _, entry in self._control.prices(tenant) if not isinstance(entry, Charge)]

    def _known(self, tenant: str, at: datetime) -> PriceBook:
        if at.tzinfo is None:
            raise ValueError(f"known_at {at.isoformat()} has no time zone: add Z for UTC or an offset")
        with self._control.begin() as connection:
            version = price_data.in_force(connection, at)
            own = self._known_then(connection, tenant, at)
        with self._lock:
            return _with_own(self._base(version or self._installed.version), own)

    @staticmethod
    def _known_then(connection: Connection, tenant: str, at: datetime) -> list[BookEntry]:
        """Entries that were live at an instant, without charges."""
        return [
            entry
            for _, entry in price_entries.stored(connection, tenant, retired=True)
            if not isinstance(entry, Charge)
            and (entry.known_from is None or entry.known_from <= at)
            and (entry.retired_at is None or entry.retired_at > at)
        ]

    def _remade(self, tenant: str, version: str) -> PriceBook | None:
        with self._control.begin() as connection:
            parts = price_data.made_of(connection, tenant, version)
            if parts is None:
                return self._base(version) if price_data.state(connection, version) else None
            own = price_entries.stored(connection, tenant, retired=True, ids=parts[1])
        return _with_own(self._base(parts[0]), [entry for _, entry in own])

    def _base(self, version: str) -> PriceBook:
        """The bundled prices of a version that is kept."""
        if self._as_bundled and version == self._installed.version == bundled.VERSION:
            return PriceBook.bundled()
        if version not in self._bases:
            with self._control.begin() as connection:
                state = price_data.state(connection, version)
                named = price_names.remembered(connection, version)
            if state is None:
                raise ValueError(f"price data {version!r} is not kept here: restore the control plane from a backup")
            lists = price_names.lists(state.entries, {**named, **state.names})
            self._bases[version] = PriceBook(version, lists)
        return self._bases[version]


@cache
def _bundled() -> tuple[Entry, ...]:
    return tuple(bundled.entries())


def _with_own(base: PriceBook, own: Sequence[BookEntry]) -> PriceBook:
    return base.with_own(own) if own else base


def _taken(was: PriceData, named: Mapping[Asked, Found], installed: PriceData, now: datetime) -> PriceData:
    """What of `installed` is taken without a yes; `named` is what names were taken for by `was`."""
    before = _number(was.version)
    held = {
        model: was.held.get(model, before) for model in _models(snapshot.changes(was.entries, installed.entries, now))
    }
    taken_for = {**named, **was.names}
    names = {asked: taken_for[asked] for asked, _ in price_names.moved(taken_for, was.entries, installed.entries, now)}
    if not held and not names:
        return installed
    by_version: dict[str, int] = {}
    for version in held.values():
        by_version[version] = by_version.get(version, 0) + 1
    which = [f"{count} held at {version}" for version, count in sorted(by_version.items())]
    which += [f"{len(names)} name{'s' if len(names) > 1 else ''} held"] if names else []
    entries = snapshot.merged(was.entries, installed.entries, held.keys())
    return PriceData(", ".join((installed.version, *which)), entries, held, names)


def _number(version: str) -> str:
    """Of "genai-prices 0.2.4, 3 held at 0.2.3" the 0.2.4."""
    return version.partition(",")[0].partition(" ")[2]


def _models(changes: Iterable[PriceChange]) -> tuple[Model, ...]:
    return tuple(dict.fromkeys((change.provider, change.model) for change in changes))


def _rates(entries: Iterable[BookEntry], currency: str) -> tuple[Rate, ...]:
    """Those of a currency, by instant; of several for the same instant, the one that decides comes last."""
    mine = [entry for entry in entries if isinstance(entry, FxRate) and entry.currency == currency]
    return rates(sorted(mine, key=lambda one: (one.effective_from, rank(one))))

"""How far forecasts of spend are off, and how often what came was within their band, beside two simpler ways.

    python benchmarks/forecast.py [--data DIR]

The example company's two months, of all and of each team, or those of a data directory that nothing else has open. On
every day on which two weeks are known the next 5, 10 and 14 days are forecast from what was known then, and compared
with what they came to. References: last week again, and the mean of the same weekday of the last four weeks. A band is
right when about 80 % of what came is inside; it is told of from 21 known days on, since the first are too few to tell.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from millicent.dashboard import demo
from millicent.warehouse import capacity
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.outlook import WEEKLY_FROM, Daily, forecast
from millicent.warehouse.query import Period, Query
from millicent.warehouse.store import Warehouse

LENGTHS = (5, 10, 14)
TOLD_FROM = 21
TARGET = Decimal("0.03")
"""Mean error of the sum of two weeks, of all spend."""
ALL = "everything"
History = Sequence[Daily]


def fill(directory: Path) -> Warehouse:
    """The example company's history, own hardware included."""
    warehouse, now = Warehouse.embedded(directory), datetime.now(UTC)
    demo.declare(warehouse, now)
    for _ in demo.history(warehouse, now):
        pass
    capacity.refresh(warehouse.engine, warehouse.control, now)
    return warehouse


def histories(warehouse: Warehouse) -> dict[str, list[Daily]]:
    """What whole days cost without charges, in all and by team."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    query = Query(measures=("spend_usd", "charges_usd"), dimensions=("team",), grain="day",
                  period=Period(today - timedelta(days=demo.DAYS), today))  # fmt: skip
    found: dict[str, dict[date, Decimal]] = {ALL: {}}
    for row in warehouse.ask(DEFAULT_TENANT, query).frame.iter_rows(named=True):
        cost = (row["spend_usd"] or Decimal(0)) - (row["charges_usd"] or Decimal(0))
        for name in (ALL, row["team"] or "nobody"):
            days = found.setdefault(name, {})
            days[row["time"].date()] = days.get(row["time"].date(), Decimal(0)) + cost
    return {name: [Daily(*day) for day in sorted(days.items())] for name, days in found.items() if sum(days.values())}


def last_week(known: History, days: int) -> Decimal:
    return sum((known[-7 + n % 7].spend_usd or Decimal(0) for n in range(days)), Decimal(0))


def four_weeks(known: History, days: int) -> Decimal:
    total = Decimal(0)
    for n in range(days):
        same = [known[at].spend_usd or Decimal(0) for at in range(len(known) - 7 + n % 7, -1, -7)][:4]
        total += sum(same, Decimal(0)) / len(same)
    return total


REFERENCES: dict[str, Callable[[History, int], Decimal]] = {"last week": last_week, "mean of 4": four_weeks}


def tried(history: History, days: int) -> tuple[dict[str, list[Decimal]], list[bool]]:
    """Errors as shares of what came, by method; and whether it was within the band."""
    errors: dict[str, list[Decimal]] = {"forecast": [], **{name: [] for name in REFERENCES}}
    inside = []
    for at in range(WEEKLY_FROM, len(history) - days + 1):
        known, today = history[:at], history[at].day
        came = sum((one.spend_usd or Decimal(0) for one in history[at : at + days]), Decimal(0))
        told = forecast(known, today, today + timedelta(days=days), today)
        if told is None or not came:
            continue
        errors["forecast"].append(abs(told.p50_usd / came - 1))
        for name, ask in REFERENCES.items():
            errors[name].append(abs(ask(known, days) / came - 1))
        if told.p10_usd is not None and told.p90_usd is not None and at >= TOLD_FROM:
            inside.append(told.p10_usd <= came <= told.p90_usd)
    return errors, inside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data directory instead of the example company")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        warehouse = Warehouse.embedded(asked.data) if asked.data else fill(Path(scratch))
        told = histories(warehouse)
        warehouse.close()
    print(f"{'days':>4}  {'of':<14}{'tries':>6}{'forecast':>10}" + "".join(f"{name:>12}" for name in REFERENCES)
          + f"{'in band':>9}")  # fmt: skip
    began, asked_for, worst = time.perf_counter(), 0, Decimal(0)
    for days in LENGTHS:
        every: dict[str, list[Decimal]] = {}
        held: list[bool] = []
        for name, history in told.items():
            errors, inside = tried(history, days)
            asked_for += len(errors["forecast"])
            row(days, name, errors, inside)
            if name == ALL:
                worst = statistics.mean(errors["forecast"])
                continue
            held += inside
            for method, found in errors.items():
                every.setdefault(method, []).extend(found)
        row(days, "parts together", every, held)
    took = (time.perf_counter() - began) / asked_for
    print(f"\n{asked_for} forecasts, {took * 1000:.1f} ms each with their references")
    verdict = "reached" if worst <= TARGET else "missed"
    print(f"mean error of the sum of {LENGTHS[-1]} days of everything: {worst:.1%} (target {TARGET:.0%}: {verdict})")
    return 0 if worst <= TARGET else 1


def row(days: int, name: str, errors: dict[str, list[Decimal]], inside: list[bool]) -> None:
    means = [f"{statistics.mean(found):.1%}" if found else "—" for found in errors.values()]
    held = f"{sum(inside) / len(inside):.0%}" if inside else "—"
    print(f"{days:>4}  {name:<14.14}{len(errors['forecast']):>6}{means[0]:>10}"
          + "".join(f"{mean:>12}" for mean in means[1:]) + f"{held:>9}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""What budgets' rules tell, against an oracle in plain Python: random calls, late ones, prices, edits and clocks.

The oracle knows no query, no standing and no state of the product. It adds up calls with `zoneinfo` and fractions and
follows the rules as docs/concepts/alerts.md states them.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from unittest.mock import patch
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from millicent.collector import pipeline, repricing
from millicent.collector.alerts import evaluating
from millicent.pricing.entries import Override
from millicent.warehouse import alert_rules, budgets, control, ledger
from millicent.warehouse.alert_rules import Rule
from millicent.warehouse.budgets import Budget
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.query import Filter
from millicent.warehouse.store import Warehouse

START = datetime(2026, 10, 23, 9, tzinfo=UTC)
"""Two days before the clocks go back in Berlin: one of the days that follow has 25 hours."""
SINCE = START - timedelta(days=4)
HOUR = timedelta(hours=1)
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Los_Angeles")
ROLLING = 3
"""Days."""
THRESHOLDS = (Fraction(1, 2), Fraction(1))


# ---- the oracle


@dataclass
class Call:
    at: datetime
    team: str
    model: str
    mtok: int
    usd: Fraction | None


@dataclass
class Alert:
    """The newest alert of a threshold in a period."""

    fired_at: datetime
    late: bool
    over: str | None = None


@dataclass
class Known:
    """What is known of a threshold in a period."""

    terms: int
    armed: bool
    quiet_until: datetime | None = None
    """Taken back without having re-armed: it is told again from then on."""


Key = tuple[Fraction, datetime | None]
"""A threshold, and the start of a period; None for rolling ones."""


@dataclass
class Oracle:
    zone: str
    every: str
    calls: list[Call] = field(default_factory=list)
    versions: list[tuple[datetime, int]] = field(default_factory=list)
    known: dict[Key, Known] = field(default_factory=dict)
    last: dict[Key, Alert] = field(default_factory=dict)

    def midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), ZoneInfo(self.zone)).astimezone(UTC)

    def periods(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Start and end of every period from the first version to now; of rolling ones the present one alone."""
        today = now.astimezone(ZoneInfo(self.zone)).date()
        if self.every == "rolling":
            yield self.midnight(today - timedelta(days=ROLLING - 1)), self.midnight(today + timedelta(days=1))
            return
        day = min(since for since, _ in self.versions).astimezone(ZoneInfo(self.zone)).date()
        if self.every == "week":
            day -= timedelta(days=day.weekday())
        while (start := self.midnight(day)) <= now:
            day += timedelta(days=7 if self.every == "week" else 1)
            yield start, self.midnight(day)

    def version(self, end: datetime, now: datetime) -> int:
        """Number of the version that held when a period ended, or holds now."""
        at = min(end - timedelta(microseconds=1), now)
        return max(number for number, (since, _) in enumerate(self.versions) if since <= at)

    def terms(self, version: int) -> int:
        """The first of the versions, one after the other, that say the same."""
        while version and self.versions[version - 1][1] == self.versions[version][1]:
            version -= 1
        return version

    def spent(self, start: datetime, end: datetime) -> list[Fraction | None]:
        return [one.usd for one in self.calls if one.team == "a" and start <= one.at < end]

    def evaluate(self, now: datetime) -> Counter[tuple[str, Fraction, datetime | None, str]]:
        """What is told at an instant: fired or cleared, of which threshold and period, and late or why."""
        before, told, fires = dict(self.last), Counter(), dict[datetime | None, tuple[Key, Alert]]()
        for start, end in self.periods(now):
            costs = self.spent(start, end)
            version = self.version(end, now)
            share = sum((one for one in costs if one is not None), Fraction(0)) / self.versions[version][1]
            terms = self.terms(version)
            name = None if self.every == "rolling" else start  # rolling ones overlap, so that they are one scope
            for threshold in THRESHOLDS:
                key = threshold, name
                ended = name is not None and end <= now
                late = name is not None and now - end >= HOUR
                unheard = ended and end <= START
                why = self.judged(key, share, terms, now, unheard=unheard, whole=None not in costs)
                alert = before.get(key)
                if why == "fired":
                    fires[name] = key, Alert(now, late=late)  # the highest stands for all
                if why in {None, "fired"} and alert and not alert.over and not alert.late and ended:
                    why = "period_over"
                if why not in {None, "fired"}:
                    told["cleared", threshold, name, why] += 1
                    self.last[key] = replace(self.last[key], over=why)
        for (threshold, start), alert in fires.values():
            told["fired", threshold, start, "late" if alert.late else "in time"] += 1
            self.last[threshold, start] = alert
        return told

    def judged(
        self, key: Key, share: Fraction, terms: int, now: datetime, *, unheard: bool, whole: bool
    ) -> str | None:  # fmt: skip
        """`fired`, why it is taken back, or nothing."""
        threshold, known, last = key[0], self.known.get(key), self.last.get(key)
        is_open, crossed = last is not None and last.over is None, share >= threshold
        anew = Known(terms, armed=not crossed)
        if known is None or known.terms != terms:
            if unheard:  # over before there was a rule
                self.known[key] = anew
                return "changed" if is_open and not crossed and whole else None
            if not crossed and is_open and not whole:
                return None
            self.known[key] = anew
            return "fired" if crossed else "changed" if is_open else None
        if crossed:
            quiet = is_open or known.quiet_until is None or now < known.quiet_until
            if not known.armed and quiet:
                return None
            self.known[key] = anew
            return "fired"
        if not whole:
            return None
        undone = last is not None and (is_open or (not known.armed and last.over == "period_over"))
        if share < threshold - Fraction(1, 20):
            known.armed, known.quiet_until = True, None
        elif undone:
            known.quiet_until = last.fired_at + timedelta(hours=24)
        return "undone" if undone else None


# ---- the product


class Then(datetime):
    """A clock that stands at `moment`."""

    moment = START

    @classmethod
    def now(cls, tz=None):
        return cls.moment.astimezone(tz)


@dataclass
class World:
    """A warehouse with one budget of team a and a rule for each threshold."""

    warehouse: Warehouse
    budget: Budget
    batches: int = 0
    memory: evaluating.Memory = field(default_factory=evaluating.Memory)

    @classmethod
    def of(cls, directory, zone: str, every: str) -> "World":
        warehouse = Warehouse.embedded(directory, memory_limit="256MB")
        told = Budget(name="A", amount=Decimal(10), filters=(Filter("team", ("a",)),), period=every, time_zone=zone,
                      rolling_days=ROLLING if every == "rolling" else None, effective_from=SINCE)  # fmt: skip
        budget = budgets.put(warehouse.control, DEFAULT_TENANT, told, "ann")
        for rule in alert_rules.live(warehouse.control, DEFAULT_TENANT):
            alert_rules.end(warehouse.control, DEFAULT_TENANT, rule.id, "ann")
        for threshold in THRESHOLDS:
            rule = Rule(name=f"{threshold}", kind="actual", threshold=Decimal(float(threshold)), budget=budget.id)
            alert_rules.put(warehouse.control, DEFAULT_TENANT, rule, "ann")
        return cls(warehouse, budget)

    def add(self, told: list[Call]) -> None:
        if not told:
            return
        rows = [
            {"tenant": DEFAULT_TENANT, "trace_id": (1000 * self.batches + n + 1).to_bytes(16), "span_id": n + 1,
             "received_at": Then.moment, "started_at": one.at, "team": one.team, "provider": "acme",
             "model": one.model, "input_tokens": one.mtok * 1_000_000, "output_tokens": 0, "billing": "api",
             "status": "ok", "signal": "span", "dialect": "millicent", "usage_source": "reported", "call_count": 1,
             "counted": True}
            for n, one in enumerate(told)
        ]  # fmt: skip
        frame = pl.concat([EMPTY, pl.DataFrame(rows)], how="diagonal_relaxed").cast(dict(EMPTY.schema))
        frame = pipeline.price_rows(frame, self.warehouse.prices).select(EMPTY.columns)
        self.batches += 1
        batch = ledger.Batch(frame, pl.DataFrame(schema=OUTCOMES), pl.DataFrame())
        ledger.commit(self.warehouse.engine, batch, "otlp", (0, self.batches))

    def price(self, model: str, usd: int) -> None:
        """Have a million tokens of a model cost that, those of stored calls too."""
        told = Override(model=model, prices={"input_mtok": Decimal(usd), "output_mtok": Decimal(usd)},
                        source=f"list of {Then.moment}", effective_from=SINCE - timedelta(days=9))  # fmt: skip
        self.warehouse.control.add_prices([told])
        version = self.warehouse.prices.version(DEFAULT_TENANT)
        run = self.warehouse.control.open_repricing(
            DEFAULT_TENANT, midnight(SINCE), midnight(Then.moment + timedelta(days=1)), version
        )
        for _ in repricing.apply(self.warehouse, run):
            pass

    def edit(self, amount: int, since: datetime) -> None:
        told = replace(self.budget, amount=Decimal(amount), effective_from=since, version=None)
        self.budget = budgets.put(self.warehouse.control, DEFAULT_TENANT, told, "ann")

    def evaluate(self) -> Counter[tuple[str, Fraction, datetime | None, str]]:
        """As the oracle tells it."""
        happened = evaluating.evaluate(self.warehouse, DEFAULT_TENANT, Then.moment, memory=self.memory)
        return Counter(
            (one.what, Fraction(one.alert.data["threshold"]["ratio"]), one.alert.period_start,
             WHY.get(one.alert.reason or "", one.alert.reason or "") if one.what == "cleared"
             else "late" if one.alert.late else "in time")
            for one in happened
        )  # fmt: skip


def midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


WHY = {
    "repriced": "undone",
    "corrected": "undone",
    "fell": "undone",
    "budget_changed": "changed",
    "rule_changed": "changed",
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A directory with nothing in it but tables."""
    directory = tmp_path_factory.mktemp("empty") / "data"
    Warehouse.embedded(directory).close()
    return directory


@pytest.fixture
def clock():
    with ExitStack() as stopped:
        for module in (alert_rules, budgets, control):
            stopped.enter_context(patch.object(module, "datetime", Then))
        yield


ADVANCES = st.sampled_from((0, 1, 3, 9, 15, 25))
MODELS = st.sampled_from(("known", "known", "dark"))
CALLS = st.lists(
    st.tuples(st.sampled_from((0, 1, 5, 12, 30, 60)), st.sampled_from("aaab"), MODELS, st.integers(1, 6)), max_size=3
)
ACTS = st.one_of(
    st.none(),
    st.tuples(st.just("edit"), st.sampled_from((5, 10, 20)), st.sampled_from((0, 0, 30))),
    st.tuples(st.just("price"), st.sampled_from(("known", "dark")), st.sampled_from((0, 1, 2))),
)  # fmt: skip
STEPS = st.lists(st.tuples(ADVANCES, CALLS, ACTS, st.booleans()), min_size=4, max_size=9)


def call(usd: int, model: str = "known", ago: int = 0) -> tuple[int, str, str, int]:
    return ago, "a", model, usd


KEPT = [(1, [call(6), call(1, "dark")], None, False), (1, [], ("price", "known", 0), False),
        (1, [], ("price", "dark", 1), True)]  # fmt: skip
"""What is below its threshold is taken back only once nothing is missing."""
LATE = [(1, [call(5)], None, False), (25, [call(5, ago=25)], None, True), (1, [], ("price", "known", 0), False)]
"""A threshold is reached to the cent, another one in a day that is over, and both are undone."""
AGAIN = [(1, [call(6)], None, False), (1, [], ("price", "known", 0), False), (1, [], ("price", "known", 1), False)]
"""What has been far below may fire again."""
COOL = [
    (1, [call(6), call(3), call(1, "dark")], ("edit", 20, 0), False), (1, [], ("price", "dark", 1), False),
    (1, [], ("price", "dark", 0), False), (1, [], ("price", "dark", 1), True), (1, [], None, False),
    (25, [], None, False),
]  # fmt: skip
"""What was only just below is told again after a day."""
EDITED = [(1, [call(6)], None, False), (1, [], ("edit", 20, 0), False), (1, [], ("edit", 5, 0), True)]
"""Another amount takes back what was told by the one before, and is told by itself."""


@example("Europe/Berlin", "day", KEPT)
@example("Asia/Kathmandu", "day", LATE)
@example("UTC", "rolling", AGAIN)
@example("America/Los_Angeles", "week", COOL)
@example("Europe/Berlin", "week", EDITED)
@given(st.sampled_from(ZONES), st.sampled_from(("day", "week", "rolling")), STEPS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rules_tell_what_the_oracle_tells(empty, tmp_path_factory, clock, zone, every, steps):
    directory = tmp_path_factory.mktemp("world") / "data"
    shutil.copytree(empty, directory)
    Then.moment = START
    world, oracle = World.of(directory, zone, every), Oracle(zone, every, versions=[(SINCE, 10)])
    prices = {"known": Fraction(1), "dark": None}
    world.price("known", 1)
    try:
        for hours, told, act, restarts in steps:
            Then.moment += hours * HOUR + timedelta(seconds=1)
            now = Then.moment
            calls = [Call(max(now - ago * HOUR, SINCE), team, model, mtok, prices[model] and prices[model] * mtok)
                     for ago, team, model, mtok in told]  # fmt: skip
            world.add(calls)
            oracle.calls += calls
            if act and act[0] == "edit":
                world.edit(act[1], now - act[2] * HOUR)
                held = budgets.history(world.warehouse.control, DEFAULT_TENANT, world.budget.id)
                oracle.versions = [(one.effective_from, int(one.amount)) for one in held]
            elif act:
                _, model, usd = act
                prices[model] = Fraction(usd)
                world.price(model, usd)
                for one in oracle.calls:
                    if one.model == model:
                        one.usd = one.mtok * prices[model]
            if restarts:
                world.memory = evaluating.Memory()
            assert world.evaluate() == oracle.evaluate(now)
        assert world.evaluate() == oracle.evaluate(now), "looking again tells what is over by now, and nothing else"
    finally:
        world.warehouse.close()

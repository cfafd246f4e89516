"""Rules: when somebody is to be told, of which spend, from what threshold on, how urgently, and where.

Seven kinds. Three are about a budget: what was spent of its limit, what will have been, and how fast. Four may be about
one or about any part of the spend: a day out of line, what a million tokens cost, calls that stay away, calls of
unknown cost. A budget gets a set of them when it is first set, and everybody may change, mute or end each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import JSON, Boolean, Column, Connection, Integer, String, Table, column, insert, select, table, update

from millicent.warehouse.instants import Instant, text_of
from millicent.warehouse.outlook import LEAST_RISE
from millicent.warehouse.query import Basis, Filter
from millicent.warehouse.repricings import told
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.control import Change, Control

Kind = Literal["actual", "forecast", "burn_rate", "anomaly", "unit_cost", "freshness", "unpriced"]
Severity = Literal["info", "warning", "error", "critical"]

OF_BUDGETS: Final[tuple[Kind, ...]] = ("actual", "forecast", "burn_rate")
"""Kinds that are about a budget and nothing else."""
WINDOWED: Final[tuple[Kind, ...]] = ("burn_rate", "unit_cost", "unpriced")
"""Kinds that look back over so many hours."""
MEANS: Final[dict[Kind, str]] = {
    "actual": "share of the limit that has been spent",
    "forecast": "share of the limit that will have been spent at the end of the period (P50)",
    "burn_rate": "how many times faster than the even pace the last hours spent",
    "anomaly": "rise of a whole day over the same weekday of the four weeks before, as a share",
    "unit_cost": "what a million tokens cost over the last hours, in the budget's currency, else in USD",
    "freshness": "how many times longer than ever in the two weeks before no call has come",
    "unpriced": "share of calls whose cost is not known in full",
}
"""What a threshold of each kind is compared with; at or above it, it counts as crossed."""
FLOORS: Final[dict[Kind, str]] = {
    "burn_rate": "spend of those hours", "anomaly": "rise, as an amount", "unit_cost": "spend of those hours",
    "freshness": "hours without a call", "unpriced": "calls of unknown cost",
}  # fmt: skip
"""What must be at or above the floor besides; kinds without an entry have none."""
MOST: Final = 10_000
MOST_FILTERS: Final = 10
MOST_ENDPOINTS: Final = 50
MOST_HOURS: Final = 24 * 31
MOST_THRESHOLD: Final = Decimal("1e12")
LONGEST: Final = 240
GIVEN: Final = "millicent"
"""Author of the rules that a budget gets of itself."""
DAY: Final = 24
SHORTEST_BURN: Final = 7
"""Days of a period from which on a pace over a day says something."""
_SUCH: Final[dict[Kind, str]] = {
    "actual": "0.8 or 80%", "forecast": "1 or 100%", "burn_rate": "3", "anomaly": "0.2 or 20%", "unit_cost": "12.50",
    "freshness": "2", "unpriced": "0.01 or 1%",
}  # fmt: skip
_DAYS: Final = {"day": 1, "week": 7, "month": 30, "quarter": 91, "fiscal_year": 365}
_CENT: Final = Decimal("0.01")
_BUDGETS: Final = table("budgets", column("tenant"), column("id"))

alert_rules: Final = Table(
    "alert_rules", metadata,
    Column("row", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("id", Integer, nullable=False), Column("name", String, nullable=False),
    Column("kind", String, nullable=False), Column("budget", Integer), Column("filters", JSON, nullable=False),
    Column("threshold", String, nullable=False), Column("floor", String), Column("basis", String, nullable=False),
    Column("window_hours", Integer, nullable=False), Column("cooldown_hours", Integer, nullable=False),
    Column("severity", String, nullable=False), Column("endpoints", JSON, nullable=False),
    Column("muted_until", Instant), Column("ended", Boolean, nullable=False),
    Column("author", String, nullable=False), Column("created_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False), sqlite_autoincrement=True,
)  # fmt: skip


class BadRuleError(ValueError):
    """A rule that cannot be; the message names the value, the rule and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When somebody is to be told.

    Attributes:
        name: unlike that of any other rule of the tenant that holds.
        kind: what is compared with the threshold; see `MEANS`.
        threshold: at or above it, somebody is told.
        budget: id of the budget that it is about; its filters, basis, currency and time zone count then.
        filters: what spend it is about, without a budget; all of it without any.
        floor: what must be reached besides, so that small things stay quiet; see `FLOORS`.
        basis: cost basis of the spend, without a budget.
        window_hours: how far back the kinds in `WINDOWED` look; 0 with `unpriced`: the budget's period.
        cooldown_hours: once it was told and is cleared, but not re-armed, how long after the telling it is told again.
        severity: how urgent it is.
        endpoints: ids of those that are told; none: every one.
        muted_until: until then alerts are kept in the inbox, and told nobody.
        ended: whether it holds no more.
        id: given when it is first set, as are `author`, `created_at` and `changed_at`; the last one is when it last
            came to judge otherwise.

    Raises:
        BadRuleError: one of them cannot be.
    """

    name: str
    kind: Kind
    threshold: Decimal
    budget: int | None = None
    filters: tuple[Filter, ...] = ()
    floor: Decimal | None = None
    basis: Basis = "effective"
    window_hours: int = DAY
    cooldown_hours: int = DAY
    severity: Severity = "warning"
    endpoints: tuple[str, ...] = ()
    muted_until: datetime | None = None
    ended: bool = False
    id: int | None = None
    author: str | None = None
    created_at: datetime | None = None
    changed_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > LONGEST or not self.name.isprintable():
            told = f"name {self.name[:40]!r} is empty, longer than {LONGEST} or not one line"
            raise BadRuleError(f"{told}: write another")
        for what, known in (("kind", Kind), ("severity", Severity), ("basis", Basis)):
            if getattr(self, what) not in get_args(known):
                raise BadRuleError(f"{what} {getattr(self, what)!r} is unknown: write {', '.join(get_args(known))}")
        _check_subject(self)
        _check_numbers(self)
        if len(self.endpoints) > MOST_ENDPOINTS:
            raise BadRuleError(f"{len(self.endpoints)} endpoints are too many: name at most {MOST_ENDPOINTS}, or none")
        if self.muted_until is not None and self.muted_until.tzinfo is None:
            raise BadRuleError(f"muted_until {self.muted_until.isoformat()} has no time zone: add Z or an offset")

    @property
    def rearmed_below(self) -> Decimal:
        """Under this it may fire again: 5 points of the limit below the threshold, a twentieth of any other."""
        if self.kind in {"actual", "forecast"}:
            return self.threshold - min(Decimal("0.05"), self.threshold / 2)
        return self.threshold * Decimal("0.95")

    @property
    def cleared_below(self) -> Decimal:
        """Under this it is no longer so. What was spent is a fact; all else would flutter about its threshold."""
        return self.threshold if self.kind == "actual" else self.rearmed_below

    @property
    def terms(self) -> tuple[object, ...]:
        """All that decides what it judges, and how."""
        return (
            self.kind, self.budget, frozenset(self.filters), self.threshold, self.floor, self.basis, self.window_hours,
        )  # fmt: skip

    def is_muted(self, at: datetime) -> bool:
        """Whether nobody is told of it at an instant."""
        return self.muted_until is not None and at < self.muted_until


def put(control: Control, tenant: str, rule: Rule, actor: str) -> Rule:
    """Set a rule, in place of the one of its id or, without one, of its name; returns it as stored.

    What holds already is not stored again.

    Raises:
        BadRuleError: there is no such tenant, rule or budget, its name is taken, or there are too many.
    """
    try:
        with control.change(tenant, actor) as change:
            return _put(change, rule)
    except BadRuleError:
        raise
    except ValueError as error:
        raise BadRuleError(str(error)) from error


def end(control: Control, tenant: str, rule_id: int, actor: str) -> Rule:
    """Have a rule hold no more. Alerts of it that are open are resolved at the next evaluation.

    Raises:
        BadRuleError: there is no such rule that holds.
    """
    return put(control, tenant, replace(_held(control, tenant, rule_id), ended=True), actor)


def mute(control: Control, tenant: str, rule_id: int, until: datetime | None, actor: str) -> Rule:
    """Tell nobody of a rule until an instant; None: tell again from now on. Alerts are kept in the inbox meanwhile.

    Raises:
        BadRuleError: there is no such rule that holds, or the instant has no time zone.
    """
    held = replace(_held(control, tenant, rule_id), muted_until=until)
    with control.change(tenant, actor) as change:
        return _store(change, held, "alert_rule.mute", held.author)


def live(control: Control, tenant: str, *, budget: int | None = None) -> list[Rule]:
    """Rules that hold, of one budget or all: by budget (those without one last), kind and threshold."""
    with control.begin() as connection:
        found = [one for one in stored(connection, tenant) if not one.ended]
    kept = [one for one in found if budget is None or one.budget == budget]
    kinds = get_args(Kind)
    return sorted(
        kept, key=lambda one: (one.budget is None, one.budget or 0, kinds.index(one.kind), one.threshold, one.id or 0)
    )


def find(control: Control, tenant: str, rule_id: int) -> Rule | None:
    """A rule, be it ended or not."""
    with control.begin() as connection:
        return next((one for one in stored(connection, tenant) if one.id == rule_id), None)


def defaults(budget: Budget) -> list[Rule]:
    """The rules that a budget gets when it is first set; it must have an id."""
    days = budget.rolling_days or _DAYS[budget.period]
    a_fifth = (budget.amount / days / 5).quantize(_CENT)
    told: list[tuple[Kind, str, Decimal | None, Severity]] = [
        ("actual", "0.5", None, "info"), ("actual", "0.8", None, "warning"), ("actual", "1", None, "error"),
        ("actual", "1.2", None, "critical"), ("forecast", "1", None, "warning"), ("forecast", "1.1", None, "warning"),
        ("burn_rate", "3", None, "warning"), ("anomaly", "0.2", a_fifth, "warning"),
        ("unpriced", "0.01", None, "warning"),
    ]  # fmt: skip
    return [
        Rule(
            name=called(kind, Decimal(threshold), budget.name), kind=kind, threshold=Decimal(threshold), floor=floor,
            budget=budget.id, severity=severity, window_hours=0 if kind == "unpriced" else DAY,
        )
        for kind, threshold, floor, severity in told
        if kind != "burn_rate" or days >= SHORTEST_BURN
    ]  # fmt: skip


def adopt(change: Change, budget: Budget) -> None:
    """Give a budget that is set for the first time, or anew, its rules, in the transaction that sets it.

    The tenant's first budget also brings a rule for calls that stay away, which is about all of them.
    """
    c, wanted, now = alert_rules.c, defaults(budget), datetime.now(UTC)
    there = change.connection.execute(
        select(c.id, c.name, c.kind, c.budget, c.ended).where(c.tenant == change.tenant)
    ).all()
    if any(one.budget == budget.id and not one.ended for one in there):
        return
    if not any(one.kind == "freshness" for one in there):
        wanted.append(Rule(name="Calls stay away", kind="freshness", threshold=Decimal(2), floor=Decimal(1)))
    taken, first = {one.name for one in there if not one.ended}, max((one.id for one in there), default=0) + 1
    for at, rule in enumerate(wanted):
        name = f"{rule.name} ({budget.id})" if rule.name in taken else rule.name
        given = replace(rule, id=first + at, name=name, author=GIVEN, created_at=now, changed_at=now)
        change.connection.execute(insert(alert_rules).values(tenant=change.tenant, **_row(given)))
    change.record("alert_rule.adopt", {"budget": budget.id, "rules": [first + at for at in range(len(wanted))]})


def retire(change: Change, budget: Budget) -> None:
    """End the rules of a budget that has ended, in the transaction that ends it; nobody could be told of them."""
    c = alert_rules.c
    mine = (c.tenant == change.tenant) & (c.budget == budget.id) & ~c.ended
    ended = change.connection.execute(update(alert_rules).where(mine).values(ended=True).returning(c.id)).scalars()
    if gone := sorted(ended):
        change.record("alert_rule.retire", {"budget": budget.id, "rules": gone})


def called(kind: Kind, threshold: Decimal, subject: str) -> str:
    """A name for a rule about a budget or a part of the spend."""
    percent = f"{(threshold * 100).normalize():f}%"
    words = {
        "actual": f"{percent} spent", "forecast": f"{percent} expected", "burn_rate": f"{threshold:f}× even pace",
        "anomaly": "a day out of line", "unit_cost": f"{threshold:f} a million tokens",
        "freshness": "calls stay away", "unpriced": f"{percent} of calls of unknown cost",
    }  # fmt: skip
    return f"{subject[: LONGEST - 40]}: {words[kind]}"


def number(text: object) -> Decimal:
    """What somebody wrote as a threshold or a floor: 0.8, 80% or 12.50.

    Raises:
        BadRuleError: it is none.
    """
    said = str(text).replace(",", "").replace("_", "").strip()
    try:
        if said.endswith("%"):
            return Decimal(said.removesuffix("%").strip()) / 100
        return Decimal(said)
    except InvalidOperation as error:
        raise BadRuleError(f"{str(text)[:40]!r} is no number: write 0.8, 80% or 12.50") from error


def written(rule: Rule) -> dict[str, Any]:
    """A rule as JSON; numbers and instants are text."""
    return {
        "id": rule.id, "name": rule.name, "kind": rule.kind, "budget": rule.budget, "filters": told(rule.filters),
        "threshold": f"{rule.threshold:f}", "floor": None if rule.floor is None else f"{rule.floor:f}",
        "basis": rule.basis, "window_hours": rule.window_hours, "cooldown_hours": rule.cooldown_hours,
        "severity": rule.severity, "endpoints": list(rule.endpoints), "muted_until": text_of(rule.muted_until),
        "ended": rule.ended, "author": rule.author, "created_at": text_of(rule.created_at),
        "changed_at": text_of(rule.changed_at),
    }  # fmt: skip


def stored(connection: Connection, tenant: str) -> list[Rule]:
    """Every rule that a tenant ever had, in the order they were first set."""
    asked = select(alert_rules).where(alert_rules.c.tenant == tenant).order_by(alert_rules.c.id)
    return [_rule(dict(row)) for row in connection.execute(asked).mappings()]


def _check_subject(rule: Rule) -> None:
    if rule.kind in OF_BUDGETS and rule.budget is None:
        raise BadRuleError(f"a rule of kind {rule.kind} is about a budget: name one, see `millicent budgets list`")
    if rule.budget is not None and rule.filters:
        raise BadRuleError(f"budget {rule.budget} says what spend the rule is about: leave its filters out")
    if len(rule.filters) > MOST_FILTERS:
        raise BadRuleError(f"{len(rule.filters)} filters are too many: write at most {MOST_FILTERS}")


def _check_numbers(rule: Rule) -> None:
    if not rule.threshold.is_finite() or not 0 < rule.threshold <= MOST_THRESHOLD:
        raise BadRuleError(
            f"threshold {rule.threshold} is not above 0: write the {MEANS[rule.kind]}, such as {_SUCH[rule.kind]}"
        )
    if rule.kind == "anomaly" and rule.threshold < LEAST_RISE:
        raise BadRuleError(f"threshold {rule.threshold} is too low for a day out of line: write {LEAST_RISE} or more")
    if rule.floor is not None and rule.kind not in FLOORS:
        raise BadRuleError(f"floor {rule.floor} says nothing of a rule of kind {rule.kind}: leave it out")
    if rule.floor is not None and not (rule.floor.is_finite() and 0 <= rule.floor <= MOST_THRESHOLD):
        raise BadRuleError(f"floor {rule.floor} is below 0: write the least {FLOORS[rule.kind]} that matters")
    least = 0 if rule.kind == "unpriced" and rule.budget is not None else 1
    if not least <= rule.window_hours <= MOST_HOURS:
        raise BadRuleError(f"window_hours {rule.window_hours} is not {least} to {MOST_HOURS}: write whole hours")
    if not 0 <= rule.cooldown_hours <= MOST_HOURS:
        raise BadRuleError(f"cooldown_hours {rule.cooldown_hours} is not 0 to {MOST_HOURS}: write whole hours")


def _put(change: Change, rule: Rule) -> Rule:
    there = stored(change.connection, change.tenant)
    held = [one for one in there if not one.ended]
    if rule.id is not None:
        old = next((one for one in held if one.id == rule.id), None)
        if old is None:
            raise BadRuleError(f"there is no rule {rule.id} that holds: see `millicent alerts rules list`")
    else:
        old = next((one for one in held if one.name == rule.name), None)
    if old:
        change.only_by(old.author, f"rule {old.name!r}")
    others = [one for one in held if old is None or one.id != old.id]
    if not rule.ended and any(one.name == rule.name for one in others):
        raise BadRuleError(f"there is a rule {rule.name!r} already: choose another name")
    if old is None and len(others) >= MOST:
        raise BadRuleError(f"there are {MOST:,} rules already: end some first")
    _check_budget(change, rule)
    new = replace(rule, id=old.id if old else max((one.id or 0 for one in there), default=0) + 1)
    return _store(change, new, "alert_rule.end" if rule.ended else "alert_rule.set", change.actor)


def _check_budget(change: Change, rule: Rule) -> None:
    if rule.budget is None or rule.ended:
        return
    mine = select(_BUDGETS.c.id).where(_BUDGETS.c.tenant == change.tenant, _BUDGETS.c.id == rule.budget).limit(1)
    if change.connection.execute(mine).first() is None:
        raise BadRuleError(f"there is no budget {rule.budget}: see `millicent budgets list`")


def _held(control: Control, tenant: str, rule_id: int) -> Rule:
    found = find(control, tenant, rule_id)
    if found is None or found.ended:
        raise BadRuleError(f"there is no rule {rule_id} that holds: see `millicent alerts rules list`")
    return found


def _store(change: Change, rule: Rule, action: str, author: str | None) -> Rule:
    """Write a rule that has an id, as new or in place of what it was; what holds already is left as it is."""
    now, c = datetime.now(UTC), alert_rules.c
    mine = (c.tenant == change.tenant) & (c.id == rule.id)
    row = change.connection.execute(select(alert_rules).where(mine)).mappings().one_or_none()
    old = _rule(dict(row)) if row else None
    new = replace(
        rule,
        author=author,
        created_at=old.created_at if old else now,
        changed_at=old.changed_at if old and old.terms == rule.terms else now,
    )
    if old and old == replace(new, author=old.author):
        return old
    if old:
        change.connection.execute(update(alert_rules).where(mine).values(_row(new)))
    else:
        change.connection.execute(insert(alert_rules).values(tenant=change.tenant, **_row(new)))
    change.record(action, written(new))
    return new


def _row(rule: Rule) -> dict[str, Any]:
    instants = {name: getattr(rule, name) for name in ("muted_until", "created_at", "changed_at")}
    return {**written(rule), **instants}


def _rule(row: dict[str, Any]) -> Rule:
    kept = {
        name: value
        for name, value in row.items()
        if name not in {"row", "tenant", "filters", "threshold", "floor", "endpoints"}
    }
    return Rule(
        **kept,
        filters=tuple(Filter(one["dimension"], tuple(one["values"]), negated=one["negated"]) for one in row["filters"]),
        threshold=Decimal(row["threshold"]),
        floor=None if row["floor"] is None else Decimal(row["floor"]),
        endpoints=tuple(row["endpoints"]),
    )

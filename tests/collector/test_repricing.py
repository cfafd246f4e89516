"""Stored calls priced again: told first, then day by day whole or not at all, never twice, never in a closed period."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import select

from millicent.collector import pipeline, repricing, rereading, retag
from millicent.collector.batch import Context, Incoming
from millicent.collector.history import ClosedPeriodError
from millicent.collector.repricing import Repricer
from millicent.pricing import bundled
from millicent.pricing.book import PriceBook
from millicent.warehouse import late, ledger, record, rollups
from millicent.warehouse.control import DEFAULT_TENANT, audit, tenants
from millicent.warehouse.engine import EngineError
from millicent.warehouse.frames import plain
from millicent.warehouse.prices import Prices
from millicent.warehouse.query import Filter, Period
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import PRICE, calls, charges, repriced, repricing_days, usage_hourly

DAY = timedelta(days=1)
MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip


class Ledger:
    """A warehouse with short ways to put calls in, to change the price list, and to look at what is stored."""

    def __init__(self, directory, otlp) -> None:
        self.warehouse = Warehouse.embedded(directory, memory_limit="256MB")
        with self.warehouse.control._engine.begin() as connection:
            connection.execute(tenants.insert(), [{"id": "rival", "name": "rival"}])
        self._otlp, self._batches = otlp, 0

    def load(self, *spans, tenant=DEFAULT_TENANT, prices=None):
        """Commit (attributes, instant) as one batch, as the loader does; by other prices than the present, if told."""
        requests = [
            self._otlp.request(self._otlp.span(told, started_ns=int(at.timestamp() * 1e6) * 1000)) for told, at in spans
        ]
        self._batches += 1
        context = Context(prices or self.warehouse.prices, [], lambda keys: ledger.seen(self.warehouse.engine, keys))
        with self.warehouse.writing:
            arrived = [Incoming(body, tenant, "key-1", self._otlp.NOW) for body in requests]
            done = pipeline.run(arrived, context)
            batch = ledger.Batch(done.spans, pl.DataFrame(schema=OUTCOMES), done.quarantined)
            with late.heeding(self.warehouse.control, batch.calls) as closed:
                ledger.commit(self.warehouse.engine, batch, "otlp", (0, self._batches), closed)

    def revise(self, **columns):
        """Make every call read otherwise, as evidence that comes late does."""
        rows = self.rows().with_columns(**columns)
        with late.heeding(self.warehouse.control, rows) as closed:
            ledger.revise(self.warehouse.engine, rows, closed=closed)

    def prices_times(self, factor):
        """Put a list in force on which everything costs `factor` times as much."""
        entries = [
            replace(entry, cells=tuple(
                replace(cell, prices={key: price * factor for key, price in cell.prices.items()})
                for cell in entry.cells
            ))
            for entry in bundled.entries()
        ]  # fmt: skip
        self.warehouse.prices = Prices(self.warehouse.control, f"list {factor}", entries)
        self.warehouse.prices.accept("ann")

    def ask(self, start=MONDAY, end=MONDAY + 3 * DAY, tenant=DEFAULT_TENANT, **told):
        version = self.warehouse.prices.version(tenant)
        return self.warehouse.control.open_repricing(tenant, start, end, version, actor="ann", **told)

    def reprice(self, *bounds, **told):
        run = self.ask(*bounds, **told)
        for _ in repricing.apply(self.warehouse, run):
            pass
        return run

    def difference(self, start=MONDAY, end=MONDAY + 3 * DAY, **told):
        found = repricing.difference(self.warehouse, DEFAULT_TENANT, Period(start, end), **told)
        return [
            (one.day.day, one.team, one.model, one.calls, one.list_usd_before, one.list_usd_after, one.closed)
            for one in found
        ]

    def close(self, start, end):
        self.warehouse.control.close_period(DEFAULT_TENANT, start, end, actor="cfo")

    def rows(self, table=calls, tenant=DEFAULT_TENANT):
        found = plain(self.warehouse.engine.read(select(table).where(table.c.tenant == tenant)))
        return found.sort("started_at", "span_id") if table is calls else found

    def costs(self):
        return self.rows()["list_cost_usd"].to_list()

    def adjustments(self):
        """By period and team, what all adjustments come to."""
        found = self.rows(charges)
        assert set(found["type"]) <= {"adjustment"}
        sums = found.group_by("period_start", "team").agg(pl.col("list_usd").sum(), pl.col("billed_usd").sum())
        return {(day.day, team): (listed, billed) for day, team, listed, billed in sums.iter_rows() if listed or billed}

    def come_to(self, day=None):
        """By team, what counted calls and charges come to at list prices: over all time, or in a day."""
        called = self.rows().filter("counted").select("team", usd="list_cost_usd", at="started_at")
        charged = self.rows(charges).select("team", usd="list_usd", at="charged_at")
        both = pl.concat([called, charged], how="vertical_relaxed").filter(
            (pl.col("at").dt.truncate("1d") == day) if day else True
        )
        return {team: usd for team, usd in both.group_by("team").agg(pl.col("usd").sum()).iter_rows() if usd}

    def assert_rollup_is_raw(self, tenant=DEFAULT_TENANT):
        both = [frame.group_by(rollups.KEY).agg(pl.col(rollups.SUMS).sum()).sort(pl.all())
                for frame in (self.rows(usage_hourly, tenant), rollups.deltas(self.rows(tenant=tenant)))]  # fmt: skip
        assert both[0].rows() == both[1].rows()


@pytest.fixture
def book(tmp_path, otlp):
    opened = Ledger(tmp_path / "data", otlp)
    yield opened
    opened.warehouse.close()


def test_what_would_change_is_told_by_day_team_and_model_and_nothing_changes(book):
    book.load(
        ({"millicent.team": "search"}, MONDAY), ({"millicent.team": "search"}, MONDAY + timedelta(hours=5)),
        ({"millicent.team": "ads"}, MONDAY), ({"gen_ai.response.model": "gpt-4o-mini"}, MONDAY + DAY),
        ({"gen_ai.response.model": "acme-7b", "gen_ai.request.model": "acme-7b"}, MONDAY + DAY),
    )  # fmt: skip
    assert book.difference() == []
    book.prices_times(2)
    before = book.rows()
    model = "gpt-4o-2024-08-06"
    assert book.difference() == [
        (16, "ads", model, 1, Decimal("0.0035"), Decimal("0.007"), False),
        (16, "search", model, 2, Decimal("0.007"), Decimal("0.014"), False),
        (17, None, "gpt-4o-mini", 1, Decimal("0.00021"), Decimal("0.00042"), False),
    ]
    assert book.rows().equals(before)
    assert book.difference(filters=[Filter("team", ("ads",))]) == book.difference()[:1]


def test_repriced_calls_are_as_if_the_prices_had_always_been_these(book):
    for hour in range(0, 72, 5):
        book.load(({"millicent.team": f"t{hour % 3}"}, MONDAY + timedelta(hours=hour)))
    book.load(({}, MONDAY), tenant="rival")
    rival = book.rows(tenant="rival")
    book.prices_times(3)
    run = book.reprice()
    rows = book.rows()
    expected = pipeline.price_rows(rows.drop(PRICE), book.warehouse.prices).select(rows.columns)
    assert rows.equals(expected)
    assert set(rows["price_version"]) == {run.version}
    book.assert_rollup_is_raw()
    assert book.difference() == []
    assert book.rows(tenant="rival").equals(rival)


def test_running_it_twice_changes_nothing(book):
    book.load(({}, MONDAY), ({}, MONDAY + DAY))
    book.close(MONDAY, MONDAY + DAY)
    book.prices_times(2)
    book.reprice()
    first = [book.rows(), book.rows(usage_hourly).sort(pl.all()), book.rows(charges)]
    again = book.reprice()
    second = [book.rows(), book.rows(usage_hourly).sort(pl.all()), book.rows(charges)]
    assert all(one.equals(other) for one, other in zip(first, second, strict=True))
    assert book.rows(repricing_days).filter(run=again.id)["changed"].sum() == 0


def test_calls_outside_the_period_or_the_filters_stay(book):
    noon = MONDAY + timedelta(hours=12)
    book.load(
        *(({"millicent.team": team}, at) for team in ("a", "b") for at in (noon - timedelta(microseconds=1), noon))
    )
    book.prices_times(2)
    book.reprice(noon, noon + DAY, filters=[Filter("team", ("a",)), Filter("request_model", ("gpt-4o",))])
    changed = book.rows().filter(pl.col("list_cost_usd") == Decimal("0.007"))
    assert changed.select("team", "started_at").rows() == [("a", noon)]
    book.assert_rollup_is_raw()


def test_a_model_that_had_no_price_is_priced_from_its_first_call_on(book):
    book.load(({}, MONDAY))
    wrong = book.rows().with_columns(
        *(pl.lit(None, pl.Decimal(18, 12)).alias(name) for name in record.MONEY), price_status=pl.lit("unpriced"),
        price_entry=pl.lit(None, pl.String), price_version=pl.lit("list 0"),
    )  # fmt: skip
    ledger.revise(book.warehouse.engine, wrong)
    assert book.difference() == [(16, None, "gpt-4o-2024-08-06", 1, None, Decimal("0.0035"), False)]
    book.reprice(filters=[Filter("price_status", ("unpriced",))])
    assert book.rows().select("list_cost_usd", "price_status").rows() == [(Decimal("0.0035"), "priced")]
    book.assert_rollup_is_raw()


def test_uncounted_calls_get_the_price_but_are_in_no_difference(book):
    book.load(({}, MONDAY), ({}, MONDAY + timedelta(hours=1)))
    first = book.rows().head(1)
    ledger.revise(book.warehouse.engine, first.with_columns(counted=pl.lit(value=False)))
    book.prices_times(2)
    assert [one[3] for one in book.difference()] == [1]
    book.reprice()
    assert book.costs() == [Decimal("0.007")] * 2
    book.assert_rollup_is_raw()


def test_a_metric_counts_as_many_calls_as_it_sums(book):
    book.load(({}, MONDAY))
    ledger.revise(book.warehouse.engine, book.rows().with_columns(call_count=pl.lit(12, pl.Int64)))
    book.prices_times(2)
    assert [one[3] for one in book.difference()] == [12]


def test_own_hardware_stays_free_and_gets_another_list_price(book):
    book.load(({}, MONDAY))
    own = book.rows().with_columns(
        billing=pl.lit("self_hosted"),
        billed_cost_usd=pl.lit(0).cast(pl.Decimal(18, 12)),
        price_status=pl.lit("not_billed"),
    )
    ledger.revise(book.warehouse.engine, own)
    book.prices_times(2)
    book.reprice()
    assert book.rows().select("list_cost_usd", "billed_cost_usd", "price_status").rows() == [
        (Decimal("0.007"), Decimal(0), "not_billed")
    ]


# ---- cut short


def test_a_day_that_fails_leaves_nothing_of_itself_and_the_days_before_stay(book, monkeypatch):
    book.load(*(({}, MONDAY + at * DAY) for at in range(3)))
    book.prices_times(2)
    run = book.ask(MONDAY, MONDAY + 3 * DAY)
    days, real = repricing.apply(book.warehouse, run), rollups.recount
    next(days)

    def power_cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rollups, "recount", power_cut)
    with pytest.raises(KeyboardInterrupt):
        next(days)
    assert book.costs() == [Decimal("0.007"), Decimal("0.0035"), Decimal("0.0035")]
    book.assert_rollup_is_raw()
    monkeypatch.setattr(rollups, "recount", real)
    assert [day.start for day in repricing.apply(book.warehouse, run)] == [MONDAY + DAY, MONDAY + 2 * DAY]
    assert book.costs() == [Decimal("0.007")] * 3
    book.assert_rollup_is_raw()
    assert book.rows(repricing_days)["changed"].to_list() == [1, 1, 1]


def test_calls_of_old_prices_that_came_into_days_already_done_are_found(book):
    book.load(({}, MONDAY), ({}, MONDAY + DAY))
    book.prices_times(2)
    days = repricing.apply(book.warehouse, book.ask(MONDAY, MONDAY + 2 * DAY))
    next(days)
    book.load(({}, MONDAY + timedelta(hours=2)), prices=PriceBook.bundled())
    assert [day.start for day in days] == [MONDAY + DAY, MONDAY]
    assert book.costs() == [Decimal("0.007")] * 3
    done = book.rows(repricing_days).sort("day")
    assert done.select("changed", "list_usd_after").rows() == [(2, Decimal("0.014")), (1, Decimal("0.007"))]
    book.assert_rollup_is_raw()


def test_calls_that_have_newer_prices_than_the_run_keep_them(book):
    book.load(({}, MONDAY))
    book.prices_times(2)
    run = book.ask()
    book.prices_times(3)
    book.load(({}, MONDAY + timedelta(hours=1)))
    assert len(list(repricing.apply(book.warehouse, run))) == 3
    assert book.costs() == [Decimal("0.007"), Decimal("0.0105")]


def test_no_call_that_arrives_meanwhile_is_lost_or_keeps_an_old_price(book):
    for hour in range(0, 24, 3):
        book.load(*(({}, MONDAY + timedelta(hours=hour, minutes=at)) for at in range(4)))
    book.prices_times(2)
    run, began = book.ask(MONDAY, MONDAY + DAY), threading.Event()

    def ingest():
        for hour in range(0, 24, 3):
            book.load(({}, MONDAY + timedelta(hours=hour, minutes=30)))
            began.set()

    worker = threading.Thread(target=ingest)
    worker.start()
    began.wait()
    for _ in repricing.apply(book.warehouse, run):
        pass
    worker.join()
    assert book.costs() == [Decimal("0.007")] * 40
    book.assert_rollup_is_raw()


def test_a_run_from_before_a_restart_is_carried_out_and_noted_with_both_versions(book):
    book.load(({}, MONDAY))
    before = book.warehouse.prices.version(DEFAULT_TENANT)
    book.prices_times(2)
    run, stop = book.ask(), threading.Event()
    worker = threading.Thread(target=Repricer(book.warehouse).run, args=(stop,))
    worker.start()
    while any(one.finished_at is None for one in book.warehouse.control.repricings(DEFAULT_TENANT)):
        stop.wait(0.01)
    stop.set()
    worker.join()
    assert book.costs() == [Decimal("0.007")]
    with book.warehouse.control.begin() as connection:
        (told,) = connection.execute(select(audit.c.detail).where(audit.c.action == "reprice.done")).scalars()
    assert (told["run"], told["version"], told["versions_before"]) == (run.id, "list 2", [before])
    assert (told["calls"], told["changed"], told["list_usd_before"]) == (1, 1, "0.003500000000")


def test_a_run_whose_prices_are_not_known_ends_with_an_error(book):
    book.warehouse.control.open_repricing(DEFAULT_TENANT, MONDAY, MONDAY + DAY, "list 99")
    repricer, stop = Repricer(book.warehouse), threading.Event()
    worker = threading.Thread(target=repricer.run, args=(stop,))
    worker.start()
    while book.warehouse.control.repricings(DEFAULT_TENANT)[0].finished_at is None:
        stop.wait(0.01)
    stop.set()
    repricer.wake()
    worker.join()
    assert "'list 99' are not known any more" in book.warehouse.control.repricings(DEFAULT_TENANT)[0].error
    assert book.rows(repricing_days).is_empty()


def test_a_database_that_fails_once_is_opened_again_and_the_run_goes_on(book, monkeypatch):
    book.load(({}, MONDAY))
    book.prices_times(2)
    book.ask()
    real, failures = repricing.amend, iter([EngineError("full"), EngineError("full")])
    stop = threading.Event()

    def amend(*told):
        for failure in failures:
            raise failure
        return real(*told)

    monkeypatch.setattr(repricing, "amend", amend)
    monkeypatch.setattr(repricing, "RETRY_S", 0.0)
    worker = threading.Thread(target=Repricer(book.warehouse).run, args=(stop,))
    worker.start()
    while book.warehouse.control.repricings(DEFAULT_TENANT)[0].finished_at is None:
        stop.wait(0.01)
    stop.set()
    worker.join()
    assert book.warehouse.control.repricings(DEFAULT_TENANT)[0].error is None
    assert book.costs() == [Decimal("0.007")]


# ---- taken back


def test_a_run_taken_back_leaves_calls_and_sums_as_they_were_and_can_be_had_again(book):
    book.load(({}, MONDAY), ({"millicent.team": "a"}, MONDAY + DAY))
    before = book.rows()
    book.prices_times(2)
    run = book.reprice()
    after = book.rows()
    undo = book.reprice(undo_of=run.id)
    assert book.rows().equals(before)
    book.assert_rollup_is_raw()
    assert [one[4:6] for one in book.difference()] == [(Decimal("0.0035"), Decimal("0.007"))] * 2
    book.reprice(undo_of=undo.id)
    assert book.rows().equals(after)
    book.assert_rollup_is_raw()


def test_what_no_undoing_can_use_any_more_is_forgotten_but_what_closed_days_were_charged_at(book):
    book.load(({}, MONDAY), ({}, MONDAY + DAY))
    book.close(MONDAY, MONDAY + DAY)
    book.prices_times(2)
    runs = [book.reprice()]
    for _ in range(3):
        runs.append(book.reprice(undo_of=runs[-1].id))
        kept = book.rows(repriced).group_by("run").agg(pl.col("started_at").dt.day().sort())
        days = dict(kept.iter_rows())
        assert [days[run.id] for run in runs] == [[16]] * (len(runs) - 2) + [[16, 17]] * 2
        assert book.costs() == [Decimal("0.0035"), Decimal("0.0035" if len(runs) % 2 == 0 else "0.007")]
    assert book.adjustments() == {}
    book.assert_rollup_is_raw()


def test_what_changed_since_is_not_taken_back(book):
    book.load(({}, MONDAY), ({}, MONDAY + DAY), ({}, MONDAY + 2 * DAY))
    book.prices_times(2)
    run = book.reprice()
    reread = book.rows().tail(1).with_columns(output_tokens=pl.lit(0, pl.Int64))
    ledger.revise(book.warehouse.engine, pipeline.price_rows(reread, book.warehouse.prices).select(record.SCHEMA.names))
    book.prices_times(3)
    book.reprice(MONDAY, MONDAY + DAY)
    book.reprice(undo_of=run.id)
    assert book.costs() == [Decimal("0.0105"), Decimal("0.0035"), Decimal("0.005")]
    book.assert_rollup_is_raw()


# ---- closed periods


def test_a_closed_day_keeps_its_amounts_and_the_difference_is_charged_now(book):
    book.load(
        ({"millicent.team": "a"}, MONDAY), ({"millicent.team": "b"}, MONDAY), ({"millicent.team": "a"}, MONDAY + DAY)
    )
    book.close(MONDAY, MONDAY + DAY)
    before = book.rows()
    book.prices_times(2)
    assert [one[-1] for one in book.difference()] == [True, True, False]
    began = datetime.now(UTC)
    run = book.reprice()
    assert book.rows().head(2).equals(before.head(2))
    assert book.costs()[2] == Decimal("0.007")
    more = (Decimal("0.0035"), Decimal("0.0035"))
    assert book.adjustments() == {(16, "a"): more, (16, "b"): more}
    charge = book.rows(charges).sort("team").row(0, named=True)
    assert charge["charged_at"] in {
        one.replace(minute=0, second=0, microsecond=0) for one in (began, datetime.now(UTC))
    }
    assert (charge["run"], charge["model"], charge["period_end"]) == (run.id, "gpt-4o-2024-08-06", MONDAY + DAY)
    assert (charge["name"], charge["why"]) == ("Repricing by list 2", "2026-11-16 is closed: 1 calls cost otherwise")
    assert book.rows(repricing_days).sort("day")["adjusted"].to_list()[:2] == [True, False]
    book.assert_rollup_is_raw()
    assert book.difference() == []


def test_further_prices_of_a_closed_day_are_charged_on_top_and_taken_back_alone(book):
    book.load(({}, MONDAY))
    book.close(MONDAY, MONDAY + DAY)
    first, second = [(book.prices_times(factor), book.reprice())[1] for factor in (2, 5)]
    assert book.adjustments() == {(16, None): (Decimal("0.014"), Decimal("0.014"))}
    book.reprice(undo_of=first.id)
    assert book.adjustments() == {(16, None): (Decimal("0.014"), Decimal("0.014"))}
    undo = book.reprice(undo_of=second.id)
    assert book.adjustments() == {(16, None): (Decimal("0.0035"), Decimal("0.0035"))}
    book.reprice(undo_of=undo.id)
    assert book.adjustments() == {(16, None): (Decimal("0.014"), Decimal("0.014"))}
    assert book.costs() == [Decimal("0.0035")]


def test_a_run_is_taken_back_by_charges_when_its_day_was_closed_since(book):
    book.load(({"millicent.team": "a"}, MONDAY))
    book.prices_times(2)
    run = book.reprice()
    book.close(MONDAY, MONDAY + DAY)
    book.reprice(undo_of=run.id)
    assert book.costs() == [Decimal("0.007")]
    less = Decimal("-0.0035")
    assert book.adjustments() == {(16, "a"): (less, less)}
    assert book.rows(charges)["name"].to_list() == [f"Repricing {run.id} undone"]


def test_an_amount_of_a_closed_day_that_is_unknown_now_stays_as_it_was_agreed(book):
    book.load(({}, MONDAY))
    book.close(MONDAY, MONDAY + DAY)
    book.warehouse.prices = Prices(
        book.warehouse.control, "list without gpt-4o", [one for one in bundled.entries() if "gpt-4o" not in one.model]
    )
    book.warehouse.prices.accept("ann")
    book.reprice()
    assert book.rows(charges).is_empty()
    assert book.rows(repricing_days)["changed"].sum() == 0


def test_a_late_call_of_a_closed_day_is_repriced_once_and_taken_back(book):
    book.load(({"millicent.team": "a"}, MONDAY))
    book.close(MONDAY, MONDAY + DAY)
    book.load(({"millicent.team": "b"}, MONDAY))
    one = Decimal("0.0035")
    assert book.come_to() == {"a": one, "b": one}
    book.prices_times(2)
    run = book.reprice()
    assert book.come_to() == {"a": 2 * one, "b": 2 * one}
    assert book.rows(repricing_days).filter(changed=2)["adjusted"].to_list() == [True]
    book.reprice()
    assert book.come_to() == {"a": 2 * one, "b": 2 * one}
    book.reprice(undo_of=run.id)
    assert book.come_to() == {"a": one, "b": one}
    assert book.come_to(MONDAY) == {"a": one}


def test_a_call_of_a_closed_day_that_was_repriced_moves_at_what_it_was_charged(book):
    book.load(({"millicent.team": "a"}, MONDAY))
    book.close(MONDAY, MONDAY + DAY)
    one, first = Decimal("0.0035"), book.come_to(MONDAY)
    book.prices_times(3)
    run = book.reprice()
    for change, expected in (
        ({"counted": pl.lit(value=False)}, {}),
        ({"counted": pl.lit(value=True)}, {"a": 3 * one}),
        ({"team": pl.lit("b")}, {"b": 3 * one}),
    ):
        book.revise(**change)
        assert book.come_to() == expected
        assert book.come_to(MONDAY) == first
    book.reprice(undo_of=run.id)
    assert book.come_to() == {"b": one}
    assert book.come_to(MONDAY) == first


def test_a_call_of_a_closed_day_that_is_priced_by_other_facts_now_forgets_what_it_was_charged(book):
    book.load(({"millicent.team": "a"}, MONDAY))
    book.close(MONDAY, MONDAY + DAY)
    one, first = Decimal("0.0035"), book.come_to(MONDAY)
    book.prices_times(3)
    run = book.reprice()
    book.revise(output_tokens=pl.lit(0, pl.Int64), list_cost_usd=pl.lit(5 * one, pl.Decimal(18, 12)))
    assert book.come_to() == {"a": 5 * one}
    book.reprice(undo_of=run.id)
    assert book.come_to() == {"a": 5 * one}
    assert book.come_to(MONDAY) == first


@pytest.mark.parametrize("change", [retag.retag, rereading.reread])
def test_nothing_else_changes_calls_of_a_closed_period_either(book, change):
    book.load(({}, MONDAY), ({}, MONDAY + DAY))
    book.close(MONDAY, MONDAY + DAY)
    before = book.rows()
    period = Period(MONDAY, MONDAY + 2 * DAY)
    with pytest.raises(ClosedPeriodError, match="2026-11-16 up to 2026-11-17 was closed by cfo"):
        change(book.warehouse, DEFAULT_TENANT, period, apply=True, actor="ann")
    assert book.rows().equals(before)
    change(book.warehouse, DEFAULT_TENANT, period, apply=False, actor="ann")
    change(book.warehouse, DEFAULT_TENANT, Period(MONDAY + DAY, MONDAY + 2 * DAY), apply=True, actor="ann")

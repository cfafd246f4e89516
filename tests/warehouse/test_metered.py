"""What meters told adds up by the hour, whatever is folded when, and reading goes on where it was."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse import metered
from millicent.warehouse.engine import EngineError
from millicent.warehouse.tables import METERED, dirty_hours, meter_hours

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
WHOSE = ("deployment", "hour", "source", "role")


def hours(*rows: dict) -> pl.DataFrame:
    whose = {"tenant": "acme", "deployment": "rack", "hour": TEN, "source": "vllm", "role": None}
    named = {name for row in rows for name in row}
    schema = {name: kind for name, kind in metered.HOURS.items() if name in named | whose.keys()}
    return pl.DataFrame([whose | row for row in rows], schema=schema)


def series(*rows: dict) -> pl.DataFrame:
    whose = {"tenant": "acme", "deployment": "rack", "source": "vllm", "role": None, "counter": "prompt_tokens",
             "series": "a", "started": None, "read_at": TEN, "value": 0}  # fmt: skip
    return pl.DataFrame([whose | row for row in rows], schema=metered.SERIES)


NONE = metered.SERIES.to_frame()


def stored(facts) -> list[dict]:
    return facts.engine.read(select(meter_hours)).to_pylist()


def sums(facts) -> dict[tuple, dict[str, int | None]]:
    """By hour, source and role; what no row tells is None."""
    found: dict[tuple, dict[str, int | None]] = {}
    for row in stored(facts):
        of = found.setdefault(tuple(row[name] for name in WHOSE), dict.fromkeys(METERED))
        for name in METERED:
            if row[name] is not None:
                of[name] = (of[name] or 0) + row[name]
    return found


def dirty(facts) -> set[tuple]:
    rows = facts.engine.read(select(dirty_hours)).to_pylist()
    assert {row["change"] for row in rows} <= {0}
    return {(row["tenant"], row["deployment"], row["hour"]) for row in rows}


def values(facts, tenant: str | None = None) -> dict[tuple, int]:
    rows = metered.series(facts.engine, tenant).to_dicts()
    return {(row["tenant"], row["counter"], row["series"], row["started"]): row["value"] for row in rows}


def test_what_is_told_of_an_hour_adds_up_and_the_hour_is_computed_again(facts):
    metered.add(facts.engine, hours({"prompt_tokens": 7, "observed_ms": 60_000}), NONE)
    metered.add(facts.engine, hours({"prompt_tokens": 5}, {"hour": TEN + HOUR, "prompt_tokens": 1}), NONE)
    told = sums(facts)
    assert told["rack", TEN, "vllm", None] == dict.fromkeys(METERED) | {"prompt_tokens": 12, "observed_ms": 60_000}
    assert told["rack", TEN + HOUR, "vllm", None]["prompt_tokens"] == 1
    assert dirty(facts) == {("acme", "rack", TEN), ("acme", "rack", TEN + HOUR)}
    assert all(row["read_at"] is not None for row in stored(facts))


def test_the_last_reading_of_a_counter_takes_the_place_of_the_one_before(facts):
    metered.add(facts.engine, hours({}), series({"value": 5}, {"series": "b", "value": 50}))
    metered.add(facts.engine, hours({}), series({"value": 9}))
    old, new = TEN - HOUR, TEN - HOUR / 2
    metered.add(facts.engine, hours({}), series({"tenant": "rival", "started": old, "value": 1}))
    two = series({"started": old, "series": "b", "value": 60}, {"started": new, "series": "b", "value": 2})
    metered.add(facts.engine, hours({}), two)
    assert values(facts, "acme") == {
        ("acme", "prompt_tokens", "a", None): 9,
        ("acme", "prompt_tokens", "b", old): 60,
        ("acme", "prompt_tokens", "b", new): 2,
    }
    assert values(facts, "rival") == {("rival", "prompt_tokens", "a", old): 1}
    assert len(values(facts)) == 4


def test_a_role_of_its_own_is_another_counter(facts):
    metered.add(facts.engine, hours({}), series({"role": "prefill", "value": 1}, {"role": "decode", "value": 2}))
    metered.add(facts.engine, hours({}), series({"role": "decode", "value": 3}))
    assert sorted(metered.series(facts.engine)["value"]) == [1, 3]


told_rows = st.lists(
    st.fixed_dictionaries(
        {
            "hour": st.integers(0, 3).map(lambda n: TEN + n * HOUR),
            "source": st.sampled_from(["vllm", "dcgm"]),
            "role": st.sampled_from([None, "prefill"]),
            "deployment": st.sampled_from(["rack", "shelf"]),
        },
        optional=dict.fromkeys(METERED, st.integers(0, 2**40)),
    ),
    min_size=1,
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(told_rows, min_size=1, max_size=4), st.integers(0, 4))
def test_folding_leaves_one_row_each_and_every_sum(facts, batches, hour):
    with facts.engine.write() as transaction:
        transaction.execute(meter_hours.delete())
    for rows in batches:
        metered.add(facts.engine, hours(*rows), NONE)
    before, many = sums(facts), len(stored(facts))
    until = TEN + hour * HOUR
    gone = metered.fold(facts.engine, until)
    assert sums(facts) == before
    left = stored(facts)
    assert len(left) == many - gone
    folded = [tuple(row[name] for name in WHOSE) for row in left if row["hour"] < until]
    assert len(folded) == len(set(folded))
    assert metered.fold(facts.engine, until) == 0


def test_counters_that_nobody_reads_any_more_are_forgotten(facts):
    late = TEN + metered.KEPT + timedelta(minutes=1)
    metered.add(facts.engine, hours({}), series({"value": 1}, {"series": "b", "read_at": late, "value": 2}))
    metered.fold(facts.engine, TEN + timedelta(days=1))
    assert len(values(facts)) == 2
    metered.fold(facts.engine, late)
    assert metered.series(facts.engine)["series"].to_list() == ["b"]


@pytest.mark.parametrize(
    ("told", "readings", "why"),
    [
        (hours({}).with_columns(joules=pl.lit(1)), NONE, "joules is no column of a meter"),
        (hours({"source": None}), NONE, "source must be told"),
        (hours({}).drop("hour"), NONE, "hour must be told"),
        (hours({}), series({"deployment": None}), "deployment must be told"),
    ],
)
def test_rows_that_nobody_could_find_again_are_refused(facts, told, readings, why):
    with pytest.raises(ValueError, match=why):
        metered.add(facts.engine, told, readings)
    assert stored(facts) == []


def test_hours_and_readings_are_stored_together_or_not_at_all(facts):
    broken = series({"value": 1}).with_columns(read_at=pl.lit(None, metered.SERIES["read_at"]))
    with pytest.raises(EngineError):
        metered.add(facts.engine, hours({"prompt_tokens": 7}), broken)
    assert stored(facts) == []
    assert dirty(facts) == set()

"""Counters as scrapers find them: whatever is sampled when, what rose is counted once, in the hours where it rose."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.pricing import catalog
from millicent.pricing.allocation import EngineTokens
from millicent.pricing.meters import (
    SAMPLES,
    STATES,
    by_hour,
    engine_tokens,
    increases,
    latest,
    spans,
    time_by_hour,
)

START = datetime(2026, 3, 1, 9, 57, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def frame(*rows, series="tokens", started=None):
    """Samples of one process, (minute, value) each."""
    told = [
        {"series": series, "started": started, "at": START + minute * MINUTE, "value": value} for minute, value in rows
    ]
    return pl.DataFrame(told, schema=SAMPLES)


def total(rises):
    return rises["increase"].sum()


# ---- an engine that really runs: requests add tokens, processes begin again


@st.composite
def lives(draw):
    """Lives of one process after another: (begin, [(minute, tokens)…]), whole minutes, without overlap."""
    now, told = 0, []
    for _ in range(draw(st.integers(1, 4))):
        begin = now + draw(st.integers(1, 30))
        work = draw(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 10**12)), max_size=6))
        events, at = [], begin
        for wait, tokens in work:
            at += wait
            events.append((at, tokens))
        now = at + draw(st.integers(1, 30))
        told.append((begin, events))
    return told, now


def value_at(life, minute):
    return sum(tokens for at, tokens in life[1] if at <= minute)


def sampled(told, minutes, *, name_process):
    rows = []
    for minute in sorted(minutes):
        alive = [life for life in told if life[0] <= minute]
        if alive:
            life = alive[-1]
            started = START + life[0] * MINUTE if name_process else None
            rows.append(frame((minute, value_at(life, minute)), started=started))
    return pl.concat(rows) if rows else SAMPLES.to_frame()


worlds = lives().flatmap(
    lambda world: st.tuples(st.just(world[0]), st.sets(st.integers(1, world[1]), max_size=25), st.just(world[1]))
)


@given(worlds, st.booleans())
def test_whatever_is_sampled_when_nothing_is_counted_twice_or_invented(world, name_process):
    told, minutes, _ = world
    rises = increases(sampled(told, minutes, name_process=name_process))
    done = sum(tokens for _, events in told for _, tokens in events)
    assert 0 <= total(rises) <= done
    assert rises["increase"].min() is None or rises["increase"].min() >= 0
    assert (rises["end"] >= rises["start"]).all()


@given(worlds)
def test_processes_that_tell_when_they_began_lose_only_what_came_after_their_last_sample(world):
    told, minutes, _ = world
    rises = increases(sampled(told, minutes, name_process=True), watched_from=START)
    expected = 0
    for life, after in pairwise([*told, (10**6, [])]):
        read = [minute for minute in minutes if life[0] <= minute < after[0]]
        expected += value_at(life, max(read)) if read else 0
    assert total(rises) == expected


@given(worlds)
def test_a_look_just_before_every_restart_loses_nothing(world):
    told, minutes, last = world
    ends = {after[0] - 1 for _, after in pairwise([*told, (last + 1, [])])}
    rises = increases(sampled(told, minutes | ends, name_process=True), watched_from=START)
    assert total(rises) == sum(tokens for _, events in told for _, tokens in events)


@given(worlds, st.booleans(), st.data())
def test_batches_count_the_same_as_all_at_once(world, name_process, data):
    told, minutes, last = world
    samples = sampled(told, minutes, name_process=name_process)
    cut = START + data.draw(st.integers(0, last)) * MINUTE
    first, second = samples.filter(pl.col("at") <= cut), samples.filter(pl.col("at") > cut)
    watched = {"watched_from": START}
    at_once = increases(samples, **watched)
    before = latest(first)
    again = first.tail(3)  # a batch that is sent twice, or late, changes nothing
    in_two = pl.concat([increases(first, **watched), increases(pl.concat([again, second]), after=before, **watched)])
    by = ["series", "started", "end"]
    assert in_two.sort(by).equals(at_once.sort(by))
    assert latest(second, before).sort(by[:2]).equals(latest(samples).sort(by[:2]))


@given(worlds, st.randoms())
def test_the_order_of_samples_and_doubles_do_not_matter(world, random):
    told, minutes, _ = world
    samples = sampled(told, minutes, name_process=True)
    order = list(range(samples.height)) * 2
    random.shuffle(order)
    assert increases(samples[order]).equals(increases(samples))


@given(worlds)
def test_hours_of_a_rise_add_up_to_it_and_so_does_their_time(world):
    told, minutes, _ = world
    rises = increases(sampled(told, minutes, name_process=True), watched_from=START)
    hours = by_hour(rises)
    assert hours["increase"].sum() == total(rises)
    lasted = (rises["end"] - rises["start"]).dt.total_microseconds()
    assert hours["observed_us"].sum() == lasted.sum()
    assert hours["gap_us"].sum() == lasted.filter(rises["gap"]).sum()
    assert hours.filter(pl.col("increase") < 0).is_empty()
    assert (hours["hour"] == hours["hour"].dt.truncate("1h")).all()
    assert not hours.select("series", "hour").is_duplicated().any()


# ---- what is what


def test_counting_begins_with_the_first_sample():
    assert increases(frame((0, 5_000_000))).is_empty()
    assert total(increases(frame((0, 5_000_000), (1, 5_000_100)))) == 100


def test_a_value_that_fell_has_begun_again_from_nothing():
    rises = increases(frame((0, 900), (1, 1_000), (2, 30), (3, 50)))
    assert rises["increase"].to_list() == [100, 30, 20]
    assert rises["how"].to_list() == ["steady", "reset", "steady"]


def test_a_restart_that_does_not_fall_is_found_by_when_the_process_began():
    before, after = frame((0, 900), (1, 1_000)), frame((3, 1_500), started=START + 2 * MINUTE)
    before = before.with_columns(started=pl.lit(START - MINUTE, SAMPLES["started"]))
    rises = increases(pl.concat([before, after]))
    assert rises["increase"].to_list() == [100, 1_500]
    assert rises["how"].to_list() == ["steady", "start"]
    assert rises["start"].to_list() == [START, START + 2 * MINUTE]


def test_replicas_are_counters_of_their_own_even_behind_one_address():
    apart = pl.concat([frame((0, 10), (1, 15), series="a"), frame((0, 1_000), (1, 1_001), series="b")])
    assert total(increases(apart)) == 6
    one, other = START - 2 * MINUTE, START - MINUTE
    behind = pl.concat([frame((0, 10), (2, 15), started=one), frame((1, 1_000), (3, 1_001), started=other)])
    assert total(increases(behind)) == 6


def test_an_energy_counter_that_goes_round_is_not_a_reset():
    round_at = 2**32
    fell = frame((0, round_at - 1_000), (1, 500))
    can = increases(fell, wraps_at=round_at, fastest_per_second=1_000_000)
    assert (can["increase"].item(), can["how"].item()) == (1_500, "wrap")
    cannot = increases(frame((0, 5_000), (1, 500)), wraps_at=round_at, fastest_per_second=1_000_000)
    assert (cannot["increase"].item(), cannot["how"].item()) == (500, "reset")


@given(st.lists(st.integers(0, 59_000_000), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_energy_is_conserved_however_often_the_counter_goes_round(rises, begin):
    values, now = [begin], begin
    for rise in rises:
        now = (now + rise) % 2**32
        values.append(now)
    told = increases(frame(*enumerate(values)), wraps_at=2**32, fastest_per_second=1_000_000)
    assert total(told) == sum(rises)


def test_samples_far_apart_are_a_gap_in_time_and_not_in_tokens():
    rises = increases(frame((0, 0), (5, 10), (11, 40)))
    assert rises["gap"].to_list() == [False, True]
    assert total(rises) == 40


def test_a_rise_over_the_hour_is_split_by_time():
    hours = by_hour(increases(frame((0, 0), (4, 10), (5, 11))))  # 9:57 to 10:01
    assert hours["hour"].dt.hour().to_list() == [9, 10]
    assert hours["increase"].to_list() == [7, 4]
    assert hours["observed_us"].to_list() == [180_000_000, 120_000_000]


def test_a_rise_in_no_time_is_in_its_hour():
    hours = by_hour(increases(frame((0, 0), (3, 5), (3, 9))))
    assert (hours["hour"].dt.hour().to_list(), hours["increase"].to_list()) == ([9, 10], [5, 4])


def test_long_silences_of_huge_counters_do_not_overflow():
    year = 365 * 24 * 60
    hours = by_hour(increases(frame((0, 0), (year, 2**62))))
    assert hours["increase"].sum() == 2**62
    assert hours.height == 365 * 24 + 1


def test_what_cannot_be_a_counter_is_refused():
    with pytest.raises(ValueError, match="a counter is below 0"):
        increases(frame((0, -1)))
    with pytest.raises(ValueError, match="go together"):
        increases(frame((0, 1)), wraps_at=2**32)


def test_nothing_is_nothing():
    empty = SAMPLES.to_frame()
    assert by_hour(increases(empty)).is_empty()
    assert latest(empty).is_empty()


# ---- busy, idle, unavailable

READ = {"series": pl.String, "at": SAMPLES["at"], "state": pl.String}


def told(*rows):
    """Spans (pool, first minute, minute after, state)."""
    columns = {"pool": pl.String, "start": SAMPLES["at"], "end": SAMPLES["at"], "state": pl.String}
    return pl.DataFrame(
        [(pool, START + first * MINUTE, START + after * MINUTE, state) for pool, first, after, state in rows],
        schema=columns, orient="row",
    )  # fmt: skip


some_spans = st.lists(
    st.tuples(st.sampled_from("pq"), st.integers(0, 200), st.integers(0, 200), st.sampled_from(STATES)), max_size=12
)


@given(some_spans)
def test_a_pool_is_in_one_state_at_a_time_minute_by_minute(rows):
    expected = {}
    for pool in "pq":
        for minute in range(200):
            states = {state for p, first, after, state in rows if p == pool and first <= minute < after}
            seen = next((state for state in STATES if state in states), None)
            if seen:
                hour = (START + minute * MINUTE).replace(minute=0)
                by_state = expected.setdefault((pool, hour), dict.fromkeys(STATES, 0))
                by_state[seen] += 60_000_000
    found = {
        (pool, hour): dict(zip(STATES, times, strict=True))
        for pool, hour, *times in time_by_hour(told(*rows)).iter_rows()
    }
    assert found == expected


def test_a_state_holds_until_the_next_reading_and_not_for_ever():
    rows = [("a", 0, "busy"), ("a", 1, "busy"), ("a", 2, "idle"), ("a", 20, "unavailable"), ("b", 1, "busy")]
    states = pl.DataFrame([(s, START + at * MINUTE, state) for s, at, state in rows], schema=READ, orient="row")
    held = spans(states, until=START + 22 * MINUTE)
    minutes = [
        (series, (start - START) // MINUTE, (end - START) // MINUTE, state)
        for series, start, end, state in held.iter_rows()
    ]
    assert minutes == [
        ("a", 0, 1, "busy"), ("a", 1, 2, "busy"), ("a", 2, 7, "idle"), ("a", 20, 22, "unavailable"), ("b", 1, 6, "busy")
    ]  # fmt: skip
    assert spans(states).height == 3
    assert spans(states.clear()).is_empty()


# ---- engines


@pytest.mark.parametrize(
    ("engine", "prompt", "cached", "meant"),
    [
        ("vllm", 100, 70, EngineTokens(input=100, cached_input=70, output=9)),
        ("sglang", 100, 70, EngineTokens(input=100, cached_input=70, output=9)),
        ("llamacpp", 30, 70, EngineTokens(input=100, uncached_input=30, cached_input=70, output=9)),
        ("llamacpp", 30, None, EngineTokens(uncached_input=30, output=9)),
        ("tgi", 100, None, EngineTokens(input=100, output=9)),
        ("vllm-mlx", 100, None, EngineTokens(input=100, output=9)),
    ],
)
def test_the_same_counters_mean_what_each_engine_says(engine, prompt, cached, meant):
    told = engine_tokens(catalog.engine(engine), prompt=prompt, cached=cached, generated=9)
    assert told == meant

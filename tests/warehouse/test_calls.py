"""Single calls, page by page: each once, newest first, only one's own."""

import base64
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.book import PriceBook
from millicent.warehouse import calls, explain
from millicent.warehouse.calls import COLUMNS, Search, find
from millicent.warehouse.query import BadQuery, Filter, Period
from millicent.warehouse.record import CALLS, NOT_COUNTED, USAGE_FLAGS

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BOOK = PriceBook.bundled()


def pages(facts, tenant: str, **told) -> list[list[dict]]:
    found, cursor, used = [], None, set()
    while cursor not in used:
        used.add(cursor)
        page, cursor = find(facts.engine, tenant, Search(cursor=cursor, **told))
        found.append(page)
        if cursor is None:
            return found
    raise AssertionError(f"cursor {cursor!r} came twice")


def spans(facts, **told) -> set[int]:
    rows, following = find(facts.engine, "acme", Search(**told))
    assert following is None
    return {int(row["span_id"], 16) for row in rows}


identities = st.tuples(
    st.sampled_from((TEN, TEN + timedelta(microseconds=1), TEN + MINUTE)),
    st.sampled_from((1, 2, 2**63, 2**64 - 1)),
    st.sampled_from((bytes(15) + b"\1", b"\x7f" * 16, b"\x80" * 16, b"\xff" * 16)),
)


@settings(max_examples=50, deadline=None)
@given(stored=st.lists(identities, unique=True, max_size=12), limit=st.integers(1, 5))
def test_paging_visits_each_call_once_newest_first_whatever_they_share(shared_facts, a_call, stored, limit):
    tenant = f"paged-{shared_facts.batches}"
    shared_facts.store(*(a_call(tenant=tenant, started_at=at, span_id=span, trace_id=trace)
                         for at, span, trace in stored))  # fmt: skip
    found = pages(shared_facts, tenant, limit=limit)
    rows = [
        (row["started_at"], int(row["span_id"], 16), bytes.fromhex(row["trace_id"])) for page in found for row in page
    ]
    assert sorted(rows) == sorted(stored)
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), reverse=True)
    assert all(len(page) == limit for page in found[:-1])


def test_calls_that_arrive_between_pages_move_nothing(facts, a_call):
    facts.store(*(a_call(span_id=n, started_at=TEN + n * MINUTE) for n in range(1, 7)))
    first, cursor = find(facts.engine, "acme", Search(limit=3))
    facts.store(a_call(span_id=99, started_at=TEN + 99 * MINUTE))
    second, _ = find(facts.engine, "acme", Search(limit=3, cursor=cursor))
    assert [int(row["span_id"], 16) for row in first + second] == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "🙂", "null", "AAAA", "../../etc", base64.urlsafe_b64encode(b"12.34").decode(),
     base64.urlsafe_b64encode(b"\x7f" + b"\xff" * 31).decode(), base64.urlsafe_b64encode(bytes(33)).decode()],
)  # fmt: skip
def test_a_cursor_that_was_not_made_here_says_so(facts, cursor):
    with pytest.raises(BadQuery) as refused:
        find(facts.engine, "acme", Search(cursor=cursor))
    assert repr(cursor) in str(refused.value)
    assert "pass the `next` of the page before" in str(refused.value)


@pytest.mark.parametrize("limit", [0, -1, calls.MOST + 1])
def test_a_limit_out_of_bounds_says_how_to_page(limit):
    with pytest.raises(BadQuery, match=rf"limit {limit} is outside 1 to 1000: page with cursor"):
        Search(limit=limit)


def test_a_row_has_the_columns_of_the_record_and_what_the_call_cost_in_effect(facts, a_call):
    at = TEN + timedelta(microseconds=123_456)
    facts.store(a_call(trace_id=bytes(15) + b"\xab", span_id=0xCD, started_at=at, billed_cost_usd=Decimal("0.25")))
    (row,), following = find(facts.engine, "acme", Search())
    assert following is None
    assert tuple(row) == COLUMNS == (*(column.name for column in CALLS), "effective_cost_usd", "energy_wh", "gco2e_g")
    assert (row["trace_id"], row["span_id"]) == ("0" * 30 + "ab", "0" * 14 + "cd")
    assert row["parent_span_id"] is row["counted_as"] is row["response_id"] is None
    assert row["started_at"] == at
    assert row["started_at"].utcoffset() == timedelta(0)
    assert (row["labels"], row["usage_flags"]) == ({}, [])
    assert row["effective_cost_usd"] == row["billed_cost_usd"] == Decimal("0.25")


def test_unknown_cost_is_none(facts, a_call):
    facts.store(a_call(price_status="unpriced"), a_call(billing="self_hosted", deployment="nowhere", input_tokens=9))
    rows, _ = find(facts.engine, "acme", Search())
    assert [row["effective_cost_usd"] for row in rows] == [None, None]


@pytest.fixture
def varied(facts, a_call):
    facts.store(
        a_call(span_id=1, team="search", model="a", streaming=True, user_id="ann"),
        a_call(span_id=2, team="ads", model="a", started_at=TEN + MINUTE, streaming=False),
        a_call(span_id=3, team=None, model="b", started_at=TEN + 2 * MINUTE, billing="self_hosted"),
        a_call(span_id=4, team="search", counted=False, not_counted_reason="same_call", counted_as=1),
        a_call(span_id=5, tenant="rival", team="search", trace_id=bytes(15) + b"\7"),
    )
    return facts


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({}, {1, 2, 3}),
        ({"include_uncounted": True}, {1, 2, 3, 4}),
        ({"filters": (Filter("team", ("search",)),)}, {1}),
        ({"filters": (Filter("team", ("search", None)),)}, {1, 3}),
        ({"filters": (Filter("team", ("search",), negated=True),)}, {2, 3}),
        ({"filters": (Filter("team", (None,), negated=True),)}, {1, 2}),
        ({"filters": (Filter("team", ("search", None), negated=True),)}, {2}),
        ({"filters": (Filter("team", ("search", "ads")), Filter("model", ("a",)))}, {1, 2}),
        ({"filters": (Filter("user_id", ("ann",)),)}, {1}),
        ({"filters": (Filter("streaming", ("false", None)),)}, {2, 3}),
        ({"filters": (Filter("cost_type", ("hardware",)),)}, {3}),
        ({"filters": (Filter("team", ("x' OR '1'='1",)),)}, set()),
        ({"period": Period(TEN, TEN + MINUTE)}, {1}),
        ({"period": Period(TEN + MINUTE, TEN + 3 * MINUTE)}, {2, 3}),
        ({"span_id": 2}, {2}),
        ({"span_id": 5}, set()),
        ({"trace_id": UUID(bytes=bytes(15) + b"\7")}, set()),
    ],
)
def test_a_search_finds_the_calls_it_describes_and_none_of_another_tenant(varied, told, found):
    assert spans(varied, **told) == found


def test_ids_find_their_call(facts, a_call):
    trace = bytes.fromhex("ff" * 16)
    facts.store(a_call(trace_id=trace, span_id=2**64 - 1), a_call(trace_id=trace, span_id=3), a_call())
    assert spans(facts, trace_id=UUID(bytes=trace)) == {2**64 - 1, 3}
    assert spans(facts, trace_id=UUID(bytes=trace), span_id=2**64 - 1) == {2**64 - 1}


# ---- most expensive first


@settings(max_examples=50, deadline=None)
@given(
    stored=st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 3)), identities), unique_by=lambda one: one[1],
                    max_size=12),
    limit=st.integers(1, 5),
    cost=st.sampled_from(("billed", "list", "effective")),
)  # fmt: skip
def test_paging_by_cost_visits_each_call_once_dearest_first_and_unknown_last(shared_facts, a_call, stored, limit, cost):
    tenant = f"priced-{shared_facts.batches}"
    paid = [None if cents is None else Decimal(cents) / 100 for cents, _ in stored]
    shared_facts.store(*(
        a_call(tenant=tenant, started_at=at, span_id=span, trace_id=trace, billed_cost_usd=usd, list_cost_usd=usd)
        for usd, (_, (at, span, trace)) in zip(paid, stored, strict=True)
    ))  # fmt: skip
    name = f"{cost}_cost_usd"
    found = [row for page in pages(shared_facts, tenant, limit=limit, order=f"-{name}") for row in page]
    assert sorted(int(row["span_id"], 16) for row in found) == sorted(span for _, (_, span, _) in stored)
    places = [(-1 if row[name] is None else row[name], row["started_at"]) for row in found]
    assert places == sorted(places, reverse=True)


def test_own_hardware_is_ordered_by_what_its_hour_cost(facts, a_call):
    facts.declare("pair", TEN)
    own = {"billing": "self_hosted", "input_tokens": 10}
    facts.store(
        a_call(span_id=1, billed_cost_usd=Decimal("0.5")),
        a_call(span_id=2, **own, deployment="pair", output_tokens=1, duration_ms=3_600_000),
        a_call(span_id=3, **own, deployment="nowhere"),
    )
    facts.refresh(TEN + timedelta(hours=2))
    rows, _ = find(facts.engine, "acme", Search(order="-effective_cost_usd"))
    assert [int(row["span_id"], 16) for row in rows] == [2, 1, 3]
    assert rows[0]["effective_cost_usd"] > 1 > rows[1]["effective_cost_usd"]
    assert rows[2]["effective_cost_usd"] is None


def test_a_cursor_of_another_order_says_so(facts, a_call):
    facts.store(*(a_call() for _ in range(3)))
    for mine, other in (("-started_at", "-list_cost_usd"), ("-list_cost_usd", "-started_at")):
        _, cursor = find(facts.engine, "acme", Search(limit=1, order=mine))
        with pytest.raises(BadQuery, match="in the same order"):
            find(facts.engine, "acme", Search(limit=1, order=other, cursor=cursor))


def test_an_unknown_order_names_those_there_are():
    with pytest.raises(BadQuery, match=r"ordered by 'team': choose from -started_at, -effective_cost_usd"):
        Search(order="team")


# ---- what else told of a call


@pytest.fixture
def retold(facts, a_call):
    """A call that two other spans and a log told of, one of them in another trace, and strangers that look alike."""
    trace, other = bytes(15) + b"\1", bytes(15) + b"\2"
    told = {"counted": False, "counted_as": 1, "counted_as_trace_id": trace}
    facts.store(
        a_call(span_id=1, trace_id=trace),
        a_call(span_id=2, trace_id=trace, not_counted_reason="same_response", **told),
        a_call(span_id=3, trace_id=other, not_counted_reason="same_response", team="ads", **told),
        a_call(span_id=4, trace_id=trace, not_counted_reason="rollup", started_at=TEN + MINUTE, **told),
        a_call(span_id=1, trace_id=other),
        a_call(span_id=5, trace_id=other, not_counted_reason="rollup", **told | {"counted_as_trace_id": other}),
        a_call(span_id=6, tenant="rival", trace_id=trace, not_counted_reason="rollup", **told),
    )
    return facts


def test_a_call_knows_what_else_told_of_it(retold):
    (row,), _ = find(retold.engine, "acme", Search(trace_id=UUID(int=1), span_id=1))
    found = calls.tellings(retold.engine, "acme", row)
    assert [int(one["span_id"], 16) for one in found] == [4, 3, 2]
    assert {(one["counted_as_trace_id"], one["counted_as"]) for one in found} == {(row["trace_id"], row["span_id"])}


def test_what_is_not_counted_is_told_by_reason_most_first(retold):
    hour = Period(TEN, TEN + timedelta(hours=1))
    assert calls.uncounted(retold.engine, "acme", hour) == [("rollup", 2), ("same_response", 2)]
    assert calls.uncounted(retold.engine, "acme", hour, (Filter("team", ("ads",)),)) == [("same_response", 1)]
    assert calls.uncounted(retold.engine, "acme", Period(TEN + MINUTE, TEN + 2 * MINUTE)) == [("rollup", 1)]


def test_the_derivation_of_an_uncounted_call_says_why_and_where_it_counts(facts, a_call):
    reasons = {**NOT_COUNTED, "of_tomorrow": "of_tomorrow"}
    told = {"counted": False, "counted_as": 0xAB, "counted_as_trace_id": bytes(15) + b"\7"}
    facts.store(*(a_call(not_counted_reason=reason, **told) for reason in reasons))
    rows, _ = find(facts.engine, "acme", Search(include_uncounted=True))
    assert {row["not_counted_reason"] for row in rows} == set(reasons)
    for row in rows:
        first, second, third = explain.lines(facts.engine, facts.prices, "acme", row)[:3]
        assert (first.step, first.what) == ("counting", f"not counted: {reasons[row['not_counted_reason']]}")
        assert second.value == f"trace {'0' * 31}7, span {'0' * 14}ab"
        assert third.what == "the amounts below are in no sum"


def test_the_derivation_tells_flags_in_words_and_a_counted_call_tells_no_counting(facts, a_call):
    facts.store(a_call(usage_flags=[*USAGE_FLAGS]))
    (row,), _ = find(facts.engine, "acme", Search())
    lines = explain.lines(facts.engine, facts.prices, "acme", row)
    told = [line.what for line in lines if line.what.startswith("flag ")]
    assert told == [f"flag {flag}: {words}" for flag, words in USAGE_FLAGS.items()]
    assert "counting" not in {line.step for line in lines}

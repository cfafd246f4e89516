"""Questions: which can be asked, in what order their rows come, and how many there may be."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest

from millicent.warehouse import ledger, query
from millicent.warehouse.query import BadQuery, Filter, Period, Query

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_rows_come_in_the_order_asked_unknown_last_and_equal_ones_by_their_keys(facts, a_call):
    spends = {"b": 2, "a": 2, "c": 3, None: 2, "e": None}
    facts.store(*(a_call(team=team, billed_cost_usd=usd and Decimal(usd)) for team, usd in spends.items()))

    def teams(**told):
        return [row["team"] for row in facts.ask("spend_usd", "calls", dimensions=("team",), **told)]

    assert teams() == ["c", "a", "b", None, "e"]
    assert teams(order=("-spend_usd", "-team")) == ["c", "b", "a", None, "e"]
    assert teams(order=("spend_usd",)) == ["a", "b", None, "c", "e"]
    assert teams(order=("calls", "-calls", "team")) == ["a", "b", "c", "e", None]
    assert teams(limit=2) == ["c", "a"]
    assert teams(order=("team",), limit=3) == ["a", "b", "c"]


def test_more_rows_than_an_answer_holds_are_refused_but_their_first_can_be_had(facts, a_call, as_batch):
    many = query.MAX_ROWS + 1
    stored = as_batch([a_call(billed_cost_usd=Decimal(1), input_tokens=1)])
    numbers = pl.DataFrame({"n": range(1, many + 1)})
    calls = stored.calls.drop("span_id", "user_id").join(numbers, how="cross")
    calls = calls.with_columns(span_id=pl.col("n").cast(pl.UInt64), user_id=pl.col("n").cast(pl.String)).drop("n")
    with facts.engine.write() as transaction:
        ledger.store(transaction, ledger.Batch(calls, stored.outcomes, stored.quarantine), change=1)
    with pytest.raises(BadQuery, match="more than 100,000 rows: ask for fewer dimensions"):
        facts.ask("calls", dimensions=("user_id",))
    top = facts.ask("calls", dimensions=("user_id",), order=("-calls", "user_id"), limit=3)
    assert [row["user_id"] for row in top] == ["1", "10", "100"]
    with pytest.raises(BadQuery, match="a limit in the order of a sum"):
        facts.ask("cost_per_mtok_usd", dimensions=("user_id",), limit=3)


# Questions that cannot be asked.

ASKED = {"measures": ("calls",), "period": Period(TEN, TEN + HOUR)}


@pytest.mark.parametrize(
    ("told", "value", "remedy"),
    [
        ({"measures": ()}, "no measures", "name at least one, such as spend_usd"),
        ({"measures": ("cost",)}, "'cost'", "accelerator_hours"),
        ({"measures": ("calls; DROP TABLE calls",)}, "'calls; DROP TABLE calls'", "choose from"),
        ({"dimensions": ("tenant",)}, "'tenant'", "choose from accelerator"),
        ({"dimensions": ("team", "team")}, "'team'", "name it once"),
        ({"basis": "retail"}, "'retail'", "choose from billed"),
        ({"grain": "minute"}, "'minute'", "choose from day"),
        ({"grain": "hour') --"}, "hour') --", "choose from day"),
        ({"order": ("-spend_usd",)}, "'spend_usd'", "choose from calls"),
        ({"order": ("time",)}, "'time'", "choose from calls"),
        ({"currency": "euro"}, "'euro'", "write USD, EUR or another code"),
        ({"time_zone": "Europe/Atlantis"}, "'Europe/Atlantis'", "write an IANA name such as Europe/Berlin"),
        ({"limit": 0}, "limit 0", "ask for fewer rows, or leave it out"),
        ({"limit": 100_001}, "limit 100001", "outside 1 to 100000"),
        ({"measures": ("accelerator_hours",), "dimensions": ("team",)}, "by team", "use only deployment"),
    ],
)
def test_a_question_that_cannot_be_asked_names_the_value_the_rule_and_the_remedy(told, value, remedy):
    with pytest.raises(BadQuery) as refused:
        Query(**ASKED | told)
    assert value in str(refused.value)
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    ("told", "value", "remedy"),
    [
        (("tenant", ("acme",)), "'tenant'", "choose from accelerator"),
        (("team'--", ("acme",)), "team'--", "choose from"),
        (("team", ()), "'team'", "name at least one"),
        (("streaming", ("yes",)), "'yes'", "write true, false or null"),
        (("team", ("a", "half \ud83d")), r"half \ud83d", "remove its lone surrogates"),
    ],
)
def test_a_filter_that_cannot_be_applied_says_so(told, value, remedy):
    with pytest.raises(BadQuery) as refused:
        Filter(*told)
    assert value in str(refused.value)
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    ("start", "end", "value", "remedy"),
    [
        (TEN.replace(tzinfo=None), TEN, "2026-03-04T10:00:00", "add Z for UTC or an offset"),
        (TEN, TEN, "2026-03-04T10:00:00+00:00", "swap them"),
        (TEN + HOUR, TEN, "start 2026-03-04T11:00:00+00:00 is not before", "swap them"),
        (datetime(1, 1, 1, tzinfo=timezone(HOUR)), TEN, "0001-01-01", "check the year"),
        (TEN, datetime(9999, 12, 31, 23, tzinfo=timezone(-HOUR)), "9999-12-31", "check the year"),
    ],
)
def test_a_period_that_is_none_says_so(start, end, value, remedy):
    with pytest.raises(BadQuery) as refused:
        Period(start, end)
    assert value in str(refused.value)
    assert remedy in str(refused.value)

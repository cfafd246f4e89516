from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard.state import BASES, CUTS, FILTERS, RANGES, SCALES, View, Window, api_query, question
from millicent.warehouse.query import Filter, Period

names = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
chosen = st.lists(names, min_size=1, max_size=4, unique=True).map(tuple)
views = st.builds(
    View,
    range=st.sampled_from(tuple(RANGES)),
    compare=st.sampled_from(("previous", "none")),
    filters=st.fixed_dictionaries({}, optional=dict.fromkeys(FILTERS, chosen)).map(
        lambda found: tuple((name, found[name]) for name in FILTERS if name in found)
    ),
    basis=st.sampled_from(tuple(BASES)),
    cut=st.sampled_from(tuple(CUTS)),
    scale=st.sampled_from(tuple(SCALES)),
)
instants = st.integers(1_700_000_000, 1_900_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(views)
def test_a_permalink_opens_the_view_it_was_copied_from(view):
    assert View.parse(view.search()) == view


@given(st.text())
def test_any_address_opens_some_view(search):
    assert isinstance(View.parse(search), View)


def test_the_default_view_has_the_plain_address():
    assert View().search() == ""
    assert View().href() == "?"


def test_what_an_address_cannot_mean_is_ignored():
    assert View.parse("?v=1&p=99w&vs=moon&basis=marginal&by=user&in=yen&shoe=42") == View()
    assert View.parse("?v=2&p=7d") == View()


def test_an_empty_value_stands_for_unknown():
    view = View.parse("?v=1&team=search&team=")
    assert view.chosen("team") == ("search", None)
    assert view.search() == "?v=1&team=search&team="


@given(views, names)
def test_choosing_one_value_twice_shows_all_again(view, name):
    narrowed = view.toggled(team=name)
    if view.chosen("team") != (name,):
        assert narrowed.chosen("team") == (name,)
        assert narrowed.toggled(team=name).chosen("team") == ()
    assert [n for n, _ in narrowed.filters] == [n for n in FILTERS if narrowed.chosen(n)]


@given(views, instants)
def test_the_period_holds_the_running_hour_and_whole_hours_only(view, now):
    period = Window.of(view, now).period
    assert period.start <= now < period.end <= now + timedelta(hours=1)
    assert (period.start.hour, period.end.minute, period.end.second) == (0, 0, 0)


@given(st.sampled_from(("7d", "4w", "12w")), instants)
def test_the_prior_period_is_as_long_and_has_the_same_weekdays(range_, now):
    window = Window.of(View(range=range_), now)
    assert window.prior.end - window.prior.start == window.period.end - window.period.start
    assert (window.period.start - window.prior.start) % timedelta(weeks=1) == timedelta()
    assert window.prior.end <= window.period.start + timedelta(days=1)


@given(instants)
def test_month_to_date_compares_with_the_same_elapsed_time(now):
    window = Window.of(View(range="mtd"), now)
    assert window.prior.start.day == 1
    assert window.prior.end <= window.period.start
    elapsed = window.period.end - window.period.start
    assert window.prior.end == min(window.prior.start + elapsed, window.period.start)


def test_days_are_utc_days_and_today_is_the_one_not_over():
    window = Window.of(View(range="7d"), datetime(2026, 11, 22, 13, 59, tzinfo=UTC))
    assert [day.day for day in window.days] == [16, 17, 18, 19, 20, 21, 22]
    assert window.today == datetime(2026, 11, 22, tzinfo=UTC)
    midnight = Window.of(View(range="7d"), datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
    assert midnight.today is None
    assert len(midnight.days) == 7


def test_no_comparison_has_no_prior_period():
    assert Window.of(View(compare="none"), datetime(2026, 11, 22, tzinfo=UTC)).prior is None


def test_a_view_asks_the_warehouse_and_the_api_the_same():
    view = View.parse("?v=1&team=a&team=&basis=usage")
    period = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
    query = question(view, period, ("spend_usd", "calls"), ("model",), "day")
    assert query.filters == (Filter("team", ("a", None)),)
    assert query.basis == "usage"
    address = urlsplit(api_query(query, format="csv"))
    assert address.path == "/api/v1/query"
    assert parse_qs(address.query) == {
        "measures": ["spend_usd,calls"], "group_by": ["model"], "filter": ["team:a,null"], "basis": ["usage"],
        "start": ["2026-11-01T00:00:00Z"], "end": ["2026-11-02T00:00:00Z"], "grain": ["day"], "format": ["csv"],
    }  # fmt: skip


@pytest.mark.parametrize("key", ["team", "model"])
def test_a_very_long_address_is_cut_not_refused(key):
    view = View.parse("?v=1&" + "&".join(f"{key}={n}" for n in range(5000)))
    assert 0 < len(view.chosen(key)) <= 200

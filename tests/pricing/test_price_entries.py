from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.pricing.entries import (
    BadPricesError,
    Charge,
    FxRate,
    Override,
    Term,
    digest,
    read,
    read_toml,
    written,
)

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
SAID = {"effective_from": NEW_YEAR, "source": "contract 2026-17"}
FILE = """
[[override]]
model = "acme-7b"
provider = "acme"
prices = { input_mtok = 2.50, output_mtok = 10 }
above = [{ input_tokens = 200_000, prices = { input_mtok = 5 } }]
currency = "EUR"
daily_from = 22:00:00
daily_to = "06:00"
zone = "Europe/Berlin"
effective_from = 2026-01-01
source = "https://acme.dev/prices"

[[override]]
model = "llama-*"
like = "groq/llama-3.3-70b-versatile"
multiply = "0.8"
effective_from = 2026-01-01T02:00:00+02:00
source = "what it would cost there"

[[term]]
provider = "openai"
percent_off = 12.5
keys = ["input_mtok"]
effective_from = 2026-01-01
effective_to = 2027-01-01
source = "contract 2026-17"

[[fx_rate]]
currency = "EUR"
usd_per_unit = 1.0832
effective_from = 2026-01-01
source = "ECB"

[[charge]]
name = "Platform fee"
type = "fee"
amount_usd = 2000
effective_from = 2026-01-01
source = "contract 2026-17"

[[charge]]
name = "Volume"
type = "volume"
tiers = [{ above_usd = 10_000, percent_off = 5 }, { above_usd = "50000", percent_off = "7.5" }]
effective_from = 2026-01-01
source = "contract 2026-17"
"""

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: text == text.strip())
instants = st.integers(0, 10**15).map(lambda us: datetime(2001, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
prices = st.dictionaries(
    st.sampled_from(["input_mtok", "output_mtok", "web_searches_kcount", "audio_hours"]),
    st.decimals(0, 10**6, places=18),
    min_size=1,
)


@st.composite
def entries(draw):
    start = draw(instants)
    said = {
        "effective_from": start, "effective_to": draw(st.none() | st.just(start + timedelta(microseconds=1))),
        "source": draw(names), "note": draw(st.text(max_size=20)), "id": draw(st.none() | st.integers(1, 10**9)),
        "known_from": draw(st.none() | instants), "author": draw(names), "retired_at": draw(st.none() | instants),
    }  # fmt: skip
    about = {name: draw(st.none() | names) for name in ("provider", "endpoint_host", "region", "service_tier")}
    match draw(st.integers(0, 4)):
        case 0:
            above = tuple((size, draw(prices)) for size in sorted(draw(st.sets(st.integers(0, 10**6), max_size=2))))
            return Override(model=draw(names), prices=draw(prices), above=above, currency="EUR", **about, **said)
        case 1:
            hours = {"daily_from": draw(st.times()), "daily_to": None, "zone": "Asia/Kolkata"}
            hours["daily_to"] = hours["daily_from"].replace(microsecond=999_999 - hours["daily_from"].microsecond)
            multiply = draw(st.none() | st.decimals(0, 9, places=12))
            return Override(model=draw(names), like="openai/gpt-4o", multiply=multiply, **hours, **about, **said)
        case 2:
            return Term(
                model=draw(st.none() | names), percent_off=draw(st.decimals("0.1", 100, places=6)), **about, **said
            )
        case 3:
            return FxRate(currency="EUR", usd_per_unit=draw(st.decimals("0.000001", 10**6, places=12)), **said)
    return Term(model=draw(st.none() | names), prices=draw(prices), currency="INR", **about, **said)


@given(entries())
def test_an_entry_reads_back_as_it_was_written(entry):
    assert read(written(entry), stored=True) == entry


def test_a_file_is_read_table_by_table():
    kinds = [type(entry) for entry in read_toml(FILE)]
    assert kinds == [Override, Override, Term, FxRate, Charge, Charge]
    first, like, term, rate, fee, volume = read_toml(FILE)
    assert first.prices == {"input_mtok": Decimal("2.50"), "output_mtok": Decimal(10)}
    assert first.above == ((200_000, {"input_mtok": Decimal(5)}),)
    assert (first.daily_from, first.daily_to) == (time(22), time(6))
    assert first.effective_from == like.effective_from == NEW_YEAR
    assert (like.multiply, term.keys, rate.usd_per_unit) == (Decimal("0.8"), ("input_mtok",), Decimal("1.0832"))
    assert (fee.amount_usd, volume.tiers[1]) == (Decimal(2000), (Decimal(50_000), Decimal("7.5")))


def test_what_is_written_is_json_with_exact_text():
    told = written(read_toml(FILE)[0])
    assert told["prices"] == {"input_mtok": "2.50", "output_mtok": "10"}
    assert told["above"] == [{"input_tokens": 200_000, "prices": {"input_mtok": "5"}}]
    assert (told["effective_from"], told["daily_to"], told["kind"]) == ("2026-01-01T00:00:00Z", "06:00:00", "override")


def test_every_problem_of_a_file_is_told_at_once_with_its_place():
    with pytest.raises(BadPricesError) as refused:
        read_toml(
            """
            [[overide]]
            [[override]]
            model = "m"
            prices = { input_mtokk = 1.0, output_mtok = "a" }
            zone = "Europe/Berln"
            effective_from = 2026-01-01T00:00:00
            [[term]]
            percent_off = 0
            keys = ["web_search_kcount"]
            effective_from = 2026-01-01
            source = " "
            [fx_rate]
            currency = "EUR"
            """
        )
    problems = refused.value.problems
    for place, words in (
        ("[[overide]]", "did you mean 'override'?"),
        ("[fx_rate]", "write [[fx_rate]], once per entry"),
        ("[[override]] 1", "prices.output_mtok 'a' is not a number"),
        ("[[override]] 1", "has no time zone: add Z"),
        ("[[override]] 1", "source is missing: name the page"),
        ("[[override]] 1", "did you mean 'Europe/Berlin'?"),
        ("[[term]] 1", "percent_off is 0"),
        ("[[term]] 1", "did you mean 'web_searches_kcount'?"),
        ("[[term]] 1", "source is blank"),
    ):
        assert any(problem.startswith(place) and words in problem for problem in problems), (place, words)
    assert not any("prices or like" in problem for problem in problems)


def test_a_file_that_is_no_toml_says_where():
    with pytest.raises(BadPricesError, match=r"not TOML.*line 1"):
        read_toml("[[override]")


OVERRIDE = {"model": "m", "prices": {"input_mtok": Decimal(1)}, **SAID}
TERM = {"percent_off": Decimal(5), **SAID}
FEE = {"name": "fee", "type": "fee", "amount_usd": Decimal(5), **SAID}


@pytest.mark.parametrize(
    ("kind", "members", "words"),
    [
        (Override, {**OVERRIDE, "effective_from": datetime(2026, 1, 1)}, "no instant with a time zone"),  # noqa: DTZ001 - on purpose
        (Override, {**OVERRIDE, "effective_from": datetime(1999, 1, 1, tzinfo=UTC)}, "between 2000 and 2100"),
        (Override, {**OVERRIDE, "effective_to": NEW_YEAR}, "swap them"),
        (Override, {**OVERRIDE, "model": None}, "model is missing"),
        (Override, {**OVERRIDE, "model": " m"}, "without blanks"),
        (Override, {**OVERRIDE, "like": "a/b"}, "prices or like"),
        (Override, {**OVERRIDE, "prices": {}}, "names no price"),
        (Override, {**OVERRIDE, "prices": {"input_mtok": 1.5}}, "is float, not an exact number"),
        (Override, {**OVERRIDE, "prices": {"input_mtok": Decimal(-1)}}, "is not from 0"),
        (Override, {**OVERRIDE, "prices": {"input_mtok": Decimal("NaN")}}, "is not from 0"),
        (Override, {**OVERRIDE, "prices": {"input_mtok": Decimal("1e-19")}}, "more than 18 decimals"),
        (Override, {**OVERRIDE, "prices": {"input_gpixels": Decimal("1e-16")}}, "more than 15 decimals"),
        (Override, {**OVERRIDE, "prices": None, "like": "gpt-4o"}, "write provider/model"),
        (Override, {**OVERRIDE, "multiply": Decimal(2)}, "stands without like"),
        (Override, {**OVERRIDE, "prices": None, "like": "a/b", "currency": "EUR"}, "the other list is in USD"),
        (Override, {**OVERRIDE, "above": ((5, OVERRIDE["prices"]), (5, OVERRIDE["prices"]))}, "order them upwards"),
        (Override, {**OVERRIDE, "daily_from": time(1)}, "go together"),
        (Override, {**OVERRIDE, "daily_from": time(1), "daily_to": time(1)}, "leave both out"),
        (Override, {**OVERRIDE, "daily_from": time(1, tzinfo=UTC), "daily_to": time(2)}, "no wall-clock time"),
        (Override, {**OVERRIDE, "currency": "euro"}, "write its code in capitals"),
        (Term, {**TERM, "percent_off": Decimal("100.1")}, "not from 0 to 100"),
        (Term, {**TERM, "prices": OVERRIDE["prices"]}, "percent_off or prices"),
        (Term, {**TERM, "currency": "EUR"}, "a percentage has none"),
        (FxRate, {"currency": "USD", "usd_per_unit": Decimal(1), **SAID}, "name the other currency"),
        (FxRate, {"currency": "EUR", "usd_per_unit": Decimal(0), **SAID}, "changes nothing"),
        (Charge, {**FEE, "type": "fees"}, "did you mean 'fee'"),
        (Charge, {**FEE, "amount_usd": None}, "write the amount of the fee"),
        (Charge, {**FEE, "effective_from": NEW_YEAR.replace(day=2)}, "first of a month"),
        (Charge, {**FEE, "type": "volume"}, "tiers are missing"),
        (Charge, {**FEE, "type": "credit", "effective_from": NEW_YEAR.replace(hour=1)}, "beginning of a day"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_price_is_refused_with_the_remedy(kind, members, words):
    with pytest.raises(BadPricesError, match=words):
        kind(**members)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("x", "a price entry is an object"),
        ({"kind": "discount"}, "kind 'discount' is unknown"),
        ({"kind": "term", "percent_off": 5.5}, "write it as text"),
        ({"kind": "term", "percent_off": True}, "not from 0"),
        ({"kind": "term", "percent_of": "5"}, "did you mean 'percent_off'"),
        ({"kind": "term", "id": 5}, "is given when an entry is stored"),
        ({"kind": "term", "effective_from": "yesterday"}, "is no instant"),
        ({"kind": "term", "effective_from": 5}, "is no instant"),
        ({"kind": "term", "provider": 5}, "is not text"),
        ({"kind": "term", "keys": "input_mtok"}, "is not a list"),
        ({"kind": "override", "daily_from": "25:00"}, "is no time of day"),
        ({"kind": "override", "prices": ["input_mtok"]}, "is no table"),
        ({"kind": "override", "above": [{"tokens": 5}]}, "no table of input_tokens and prices"),
        ({"kind": "override", "above": [{"input_tokens": "5", "prices": {}}]}, "not a whole number"),
    ],
)
def test_json_that_is_no_entry_is_refused_with_the_remedy(told, words):
    with pytest.raises(BadPricesError, match=words):
        read(told)


def test_instants_are_read_as_days_of_utc_or_with_their_zone():
    elsewhere = NEW_YEAR.astimezone(timezone(timedelta(hours=5)))
    for told in ("2026-01-01", date(2026, 1, 1), "2026-01-01T00:00:00Z", elsewhere):
        term = read({"kind": "term", "percent_off": "5", "effective_from": told, "source": "s"})
        assert term.effective_from == NEW_YEAR


def test_a_digest_follows_what_can_change_an_amount_and_nothing_else():
    one, other = Term(**TERM), Override(**OVERRIDE)
    assert len(digest([one])) == 8
    stored = [Term(**TERM, id=1), Override(**OVERRIDE, id=2)]
    assert digest(stored) == digest(stored[::-1]) == digest([one, other])
    assert digest([one]) == digest([Term(**TERM | {"source": "page 3", "note": "n", "author": "ann", "id": 7})])
    assert digest([one, Charge(**FEE)]) == digest([one])
    changed = {digest([Term(**TERM | change)]) for change in ({}, {"percent_off": Decimal(6)}, {"region": "eu"})}
    assert len(changed) == 3


def test_of_two_that_contradict_each_other_the_digest_knows_which_came_last():
    early, late = NEW_YEAR, NEW_YEAR + timedelta(days=1)
    orders = [
        [Term(**TERM, id=1, known_from=first), Term(**TERM | {"percent_off": Decimal(9)}, id=2, known_from=second)]
        for first, second in ((early, late), (late, early))
    ]
    assert digest(orders[0]) != digest(orders[1])

"""Why spend changed: effects add up to the change whatever happened, and each is what its name says."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import product
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.warehouse import query
from millicent.warehouse.drivers import TITLES, Mover, bridge, movers, sentence
from millicent.warehouse.query import Filter, Period, Query
from millicent.warehouse.record import CHARGE, IDLE

DAY = timedelta(days=1)
CENT = Decimal("0.01")
BESIDE = ("idle", "unavailable", "untracked", "charge", "adjustment")
KEYS = ("cost_type", "model", "provider", "deployment")
ENTITIES = ("team", "model")
SUMS = ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
TOKENS = ("priced_tokens", "listed_tokens")
LISTED = ("list_cost_usd", "list_input_usd", "list_cache_read_usd", "list_cache_write_usd")
PLACES = [(*key, *place) for key in product(("api", "hardware"), (None, "a")) for place in ((None, "x"), ("x", "y"))]
PLACES += [(kind, None, None, deployment) for kind in BESIDE for deployment in (None, "x")]


def side(random: Random) -> list[dict]:
    """Rows of a period: some places are there and some are not, some sums are known and some are not."""

    def amount() -> Decimal | None:
        return None if random.random() < 0.15 else Decimal(random.randint(-(10**32), 10**33)).scaleb(-24)

    def count() -> int | None:
        return random.choice([None, 0, 1, *[random.randint(0, 10**12)] * 6])

    with localcontext(prec=60):
        return [
            dict(zip(KEYS, place, strict=True)) | {"team": random.choice([None, "a"]), "spend_usd": amount()}
            | {name: count() for name in (*SUMS, *TOKENS)} | {name: amount() for name in LISTED}
            for place in PLACES * random.choice([0, 1, 1, 2]) if random.random() < 0.7
        ]  # fmt: skip


sides = st.integers(0, 2**32).map(lambda seed: side(Random(seed)))


@pytest.fixture(scope="module")
def start():
    return datetime(2026, 3, 5, tzinfo=UTC)


@pytest.fixture
def ask(facts):
    return lambda asked: query.run(facts.engine, "acme", asked).frame


def asked(start, **told) -> Query:
    return Query(measures=("spend_usd",), period=Period(start, start + DAY), **told)


def told(before: list[dict], after: list[dict], question: Query, rates: tuple[Decimal, Decimal] = (Decimal(1),) * 2):
    """Answers as the warehouse does, out of rows; amounts of another currency by the rate of their period."""

    def answer(one: Query) -> pl.DataFrame:
        now = one.period == question.period
        rate = rates[now] if one.currency != "USD" else Decimal(1)
        grouped: dict[tuple, dict] = {}
        for row in after if now else before:
            found = grouped.setdefault(tuple(row[name] for name in one.dimensions), dict.fromkeys(one.measures))
            for name in one.measures:
                if row[name] is not None:
                    found[name] = (found[name] or 0) + row[name] * (rate if name == "spend_usd" else 1)
        if not one.dimensions and not grouped:
            grouped[()] = dict.fromkeys(one.measures)
        schema = dict.fromkeys(one.dimensions, pl.String) | {
            name: pl.Decimal(38, 24) if name.endswith("_usd") else pl.Int64 for name in one.measures
        }
        return pl.DataFrame(
            [dict(zip(one.dimensions, key, strict=True)) | sums for key, sums in grouped.items()], schema=schema
        )

    return answer


def spent(side: list[dict]) -> Decimal | None:
    known = [row["spend_usd"] for row in side if row["spend_usd"] is not None]
    return sum(known, Decimal(0)) if known else None


# ---- it adds up


@settings(max_examples=60)
@given(sides, sides, st.sampled_from(["list", "billed", "effective", "usage", "marginal"]))
def test_effects_add_up_to_the_change_whatever_happened(start, before, after, basis):
    question = asked(start, basis=basis)
    with localcontext(prec=60):
        found = bridge(told(before, after, question), question, Period(start - DAY, start))
        ends = [None if end is None else end.quantize(Decimal("1e-12")) for end in (spent(before), spent(after))]
        assert [found.before_usd, found.after_usd] == ends
        assert sum((one.amount_usd for one in found.effects), Decimal(0)) == (ends[1] or 0) - (ends[0] or 0)
    assert [one.name for one in found.effects] == [name for name in TITLES if name in {e.name for e in found.effects}]
    assert all(one.amount_usd and one.words and one.title for one in found.effects)


@settings(max_examples=60)
@given(sides, sides, st.decimals("0.01", 200, places=6), st.decimals("0.01", 200, places=6))
def test_effects_add_up_in_another_currency_too(start, before, after, was, now):
    question = asked(start, currency="EUR")
    small = [
        [row | {"spend_usd": row["spend_usd"] and row["spend_usd"].quantize(CENT)} for row in side]
        for side in (before, after)
    ]
    with localcontext(prec=60):
        answers = told(*small, question, (was, now))
        found = bridge(answers, question, Period(start - DAY, start))
        ends = [(spent(side) or 0) * rate for side, rate in zip(small, (was, now), strict=True)]
        assert sum((one.amount_usd for one in found.effects), Decimal(0)) == found.delta_usd == ends[1] - ends[0]


@settings(max_examples=60)
@given(sides, sides)
def test_movers_of_a_dimension_add_up_to_the_change(start, before, after):
    question = asked(start)
    with localcontext(prec=60):
        found = movers(told(before, after, question), question, Period(start - DAY, start), ENTITIES)
        for dimension in ENTITIES:
            mine = [one.delta_usd for one in found if one.dimension == dimension]
            assert sum(mine, Decimal(0)) == (spent(after) or 0) - (spent(before) or 0)
    assert [abs(one.delta_usd) for one in found] == sorted((abs(one.delta_usd) for one in found), reverse=True)


# ---- each effect is what its name says


def api(at, model="gpt", usd="1", tokens=(1000, 0, 500), **more) -> dict:
    """A call to a provider: input, of it cached, and output; listed at what it cost, 1 : 0.1 : 4 a token."""
    came, read, went = tokens
    weights = [came - read, Decimal(read) / 10, went * 4]
    each = Decimal(usd) / sum(weights)
    listed = [(weight * each).quantize(Decimal("1e-12")) for weight in weights]
    amounts = dict(zip(("list_input_usd", "list_cache_read_usd", "list_output_usd"), listed, strict=True))
    return {
        "started_at": at, "model": model, "provider": "openai", "team": "search", "input_tokens": came,
        "cache_read_tokens": read, "cache_write_tokens": 0, "output_tokens": went, "billed_cost_usd": Decimal(usd),
        "list_cost_usd": Decimal(usd), **amounts, **more,
    }  # fmt: skip


def changed(facts, ask, a_call, before: list[dict], after: list[dict], **told) -> dict[str, Decimal]:
    """Effects to the cent of what was called on one day and on the next."""
    facts.store(*(a_call(**one) for one in (*before, *after)))
    question = asked(after[0]["started_at"] if after else before[0]["started_at"] + DAY, **told)
    found = bridge(ask, question, Period(question.period.start - DAY, question.period.start))
    cents = {one.name: one.amount_usd.quantize(CENT) for one in found.effects}
    return {name: amount for name, amount in cents.items() if amount}


def test_more_of_the_same_is_volume(facts, ask, a_call, start):
    before = [api(start), api(start, "small", usd="0.1")]
    after = [{**one, "started_at": start + DAY} for one in before * 3]
    assert changed(facts, ask, a_call, before, after) == {"volume": Decimal("2.20")}


def test_the_same_tokens_on_dearer_models_are_choice_of_models(facts, ask, a_call, start):
    before = [api(start), *[api(start, "small", usd="0.1")] * 3]
    after = [*[api(start + DAY)] * 3, api(start + DAY, "small", usd="0.1")]
    assert changed(facts, ask, a_call, before, after) == {"models": Decimal("1.80")}


def test_the_same_tokens_at_another_price_are_price(facts, ask, a_call, start):
    assert changed(facts, ask, a_call, [api(start)], [api(start + DAY, usd="1.5")]) == {"price": Decimal("0.50")}


def test_more_output_of_as_many_tokens_is_kind_of_tokens(facts, ask, a_call, start):
    before = [api(start, usd="6", tokens=(2000, 0, 1000))]  # 0.001 a token of input, 0.004 of output
    after = [api(start + DAY, usd="9", tokens=(1000, 0, 2000))]
    assert changed(facts, ask, a_call, before, after) == {"tokens": Decimal("3.00")}


def test_more_input_out_of_the_cache_is_kind_of_tokens(facts, ask, a_call, start):
    before = [api(start, usd="2", tokens=(2000, 1000, 225))]
    after = [api(start + DAY, usd="1.1", tokens=(2000, 2000, 225))]
    assert changed(facts, ask, a_call, before, after) == {"tokens": Decimal("-0.90")}


def test_the_same_model_at_a_dearer_provider_is_where_it_runs(facts, ask, a_call, start):
    before = [api(start), api(start, usd="2", provider="azure")]
    after = [api(start + DAY, usd="2", provider="azure")] * 2
    assert changed(facts, ask, a_call, before, after) == {"places": Decimal("1.00")}


def test_a_model_at_a_provider_that_is_new_is_where_it_runs(facts, ask, a_call, start):
    after = [api(start + DAY, usd="0.4", provider="bedrock")]
    assert changed(facts, ask, a_call, [api(start)], after) == {"places": Decimal("-0.60")}


def test_models_that_came_and_went_stand_apart(facts, ask, a_call, start):
    before, after = [api(start, "old", usd="3")], [api(start + DAY, "fresh", usd="5")]
    assert changed(facts, ask, a_call, before, after) == {"new": Decimal("5.00"), "gone": Decimal("-3.00")}


def test_what_only_one_period_knows_the_cost_of_is_not_taken_for_volume(facts, ask, a_call, start):
    unknown = {"billed_cost_usd": None, "list_cost_usd": None, "price_status": "unpriced"}
    before = [api(start, "fresh", usd="5") | unknown]
    assert changed(facts, ask, a_call, before, [api(start + DAY, "fresh", usd="5")]) == {"other": Decimal("5.00")}


def test_charges_are_an_effect_of_their_own(facts, ask, a_call, a_charge, start):
    facts.charge(a_charge(charged_at=start + DAY, billed_usd=Decimal(-4), name="credit", type="credit"))
    same = [api(start)], [api(start + DAY)]
    assert changed(facts, ask, a_call, *same) == {"charges": Decimal("-4.00")}


def test_own_hardware_tells_efficiency_and_idle_apart(facts, ask, a_call, a_deployment_hour, start):
    """The same tokens at a third more a token; and the idle rest of an hour that costs four dollars."""
    tokens = {"input_tokens": 1000, "cache_read_tokens": 0, "output_tokens": 1000}
    own = {"billing": "self_hosted", "deployment": "rack", "model": "qwen", "price_status": "not_billed"} | tokens
    hours = [
        a_deployment_hour(hour=at, model="qwen", busy_usd=Decimal(busy), idle_usd=4 - Decimal(busy),
                          weight=Decimal(5_000_000), rate_usd_per_weight=Decimal(busy) / 5_000_000)
        for at, busy in ((start, "3"), (start + DAY, "4"))
    ]  # fmt: skip
    facts.put("deployment_hours", hours)
    calls = [own | {"started_at": start}], [own | {"started_at": start + DAY}]
    assert changed(facts, ask, a_call, *calls) == {"efficiency": Decimal("1.00"), "idle": Decimal("-1.00")}
    direct = bridge(ask, asked(start + DAY, basis="usage"), Period(start, start + DAY))
    assert [(one.name, one.amount_usd.quantize(CENT)) for one in direct.effects] == [("efficiency", Decimal("1.00"))]


def test_the_parts_of_an_effect_say_which_models(facts, ask, a_call, start):
    before = [api(start, "steady"), api(start, "dearer")]
    after = [api(start + DAY, "steady"), api(start + DAY, "dearer", usd="3")]
    facts.store(*(a_call(**one) for one in (*before, *after)))
    (price,) = bridge(ask, asked(start + DAY), Period(start, start + DAY)).effects
    assert [(part.dimension, part.value) for part in price.parts] == [("model", "dearer")]


def test_movers_tell_what_came_and_went_and_keep_to_the_filters(facts, ask, a_call, start):
    facts.store(
        a_call(**api(start, team="old", usd="3")),
        a_call(**api(start + DAY, team="fresh", usd="5")),
        a_call(**api(start + DAY, team="other", usd="9", model="else")),
    )
    question = asked(start + DAY, filters=(Filter("model", ("gpt",)),))
    assert movers(ask, question, Period(start, start + DAY), ("team",)) == [
        Mover("team", "fresh", None, Decimal(5), Decimal(5)),
        Mover("team", "old", Decimal(3), None, Decimal(-3)),
    ]


# ---- in words


def test_a_sentence_says_how_much_what_and_who(facts, ask, a_call, start):
    before = [api(start, usd="100")]
    after = [api(start + DAY, usd="100")] * 2
    facts.store(*(a_call(**one) for one in (*before, *after)))
    question, prior = asked(start + DAY), Period(start, start + DAY)
    said = sentence(movers(ask, question, prior, ("team",)), bridge(ask, question, prior), lambda usd: f"${usd:.2f}")
    assert said == "Spend rose by $100.00 (100%), mostly volume (+$100.00). search moved most (+$100.00)."


def test_nothing_is_said_of_nothing(ask, start):
    question = asked(start)
    found = bridge(ask, question, Period(start - DAY, start))
    assert (found.before_usd, found.after_usd, found.effects) == (None, None, ())
    assert sentence([], found) == "Spend did not change."


def test_who_moved_most_is_a_caller(start):
    question = asked(start)
    after = [
        dict.fromkeys((*KEYS, *SUMS, *TOKENS, *LISTED)) | {"cost_type": "idle", "spend_usd": Decimal(7), "team": IDLE}
    ]
    found = bridge(told([], after, question), question, Period(start - DAY, start))
    who = [Mover("team", one, None, Decimal(7), Decimal(7)) for one in (IDLE, CHARGE)]
    assert sentence(who, found) == "Spend rose by 7, mostly idle hardware (+7)."

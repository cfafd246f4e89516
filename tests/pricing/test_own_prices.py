"""Own entries over a price list, against an oracle that reads the entries one call at a time, in fractions."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.book import PriceBook
from millicent.pricing.entries import FxRate, Override, Term
from millicent.pricing.rates import Cell, Entry

US = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
US_CENT = Decimal("0.01")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER = {
    "input_mtok": 10**6,
    "cache_read_mtok": 10**6,
    "output_mtok": 10**6,
    "output_reasoning_mtok": 10**6,
    "web_searches_kcount": 10**3,
    "requests_kcount": 10**3,
    "audio_hours": 3600,
}
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
DAYS = (
    datetime(2025, 3, 9, tzinfo=UTC),  # clocks change in New York
    datetime(2025, 3, 30, tzinfo=UTC),  # in Berlin
    datetime(2025, 4, 5, tzinfo=UTC),  # by half an hour on Lord Howe Island
    datetime(2025, 7, 1, tzinfo=UTC),
    datetime(2025, 10, 26, tzinfo=UTC),
    datetime(2026, 2, 1, tzinfo=UTC),
)
CHANGES = (datetime(2025, 4, 1, tzinfo=UTC), datetime(2025, 10, 26, 13, tzinfo=UTC))
CLOCKS = (timedelta(hours=6), timedelta(hours=18, minutes=30))
SIZES = (1_000,)
# One list, of a model that the lookup knows: two changes × three parts of the day × two sizes, each price its own.
LISTED = [
    {
        "input_mtok": Decimal(n + 2),
        "cache_read_mtok": Decimal(n + 1) / 4,
        "output_mtok": Decimal(3 * n + 5),
        "web_searches_kcount": Decimal(n + 10),
        **({"requests_kcount": Decimal("0.1")} if n % 5 == 0 else {}),
        **({"output_reasoning_mtok": Decimal("0.0000070000000123")} if n % 7 == 0 else {}),
    }
    for n in range(18)
]
GRID = Entry(
    "openai",
    "gpt-4o",
    (),
    tuple((at - EPOCH) // US for at in CHANGES),
    tuple(clock // US for clock in CLOCKS),
    SIZES,
    tuple(Cell(f"cell {n}", prices) for n, prices in enumerate(LISTED)),
)
BASE = PriceBook("test prices", [GRID])


# ---- the meaning, said again


def listed_prices(call):
    if call["model"] != "gpt-4o" or call["provider"] != "openai":
        return None, None
    since_midnight = call["started_at"] - call["started_at"].replace(hour=0, minute=0, second=0, microsecond=0)
    date = sum(call["started_at"] >= change for change in CHANGES)
    clock = sum(since_midnight >= start for start in CLOCKS)
    size = sum((call["input_tokens"] or 0) > above for above in SIZES)
    n = 6 * date + 2 * clock + size
    return LISTED[n], f"cell {n}"


def matches(entry, call):
    for name in ("provider", "endpoint_host", "region", "service_tier"):
        wanted = getattr(entry, name)
        if wanted is not None and (call[name] or "").lower() != wanted.lower():
            return False
    if entry.model is None or entry.model == "*":
        return True
    if entry.model.endswith("*"):
        return (call["model"] or "").startswith(entry.model[:-1])
    return call["model"] == entry.model.lower()


def holds(entry, call):
    at = call["started_at"]
    if at < entry.effective_from or (entry.effective_to is not None and at >= entry.effective_to):
        return False
    if isinstance(entry, Term) or entry.daily_from is None:
        return True
    wall = at.astimezone(ZoneInfo(entry.zone)).replace(tzinfo=None).time()
    if entry.daily_from < entry.daily_to:
        return entry.daily_from <= wall < entry.daily_to
    return not entry.daily_to <= wall < entry.daily_from


def deciding(entries):
    """The most specific, by one rule after the other; the last known of those, then the last to take effect."""
    rules = (
        lambda one: 0 if one.model is None else 1 if "*" in one.model else 2,
        lambda one: one.endpoint_host is not None,
        lambda one: one.region is not None,
        lambda one: one.service_tier is not None,
        lambda one: one.provider is not None,
        lambda one: isinstance(one, Override) and one.daily_from is not None,
        lambda one: len((one.model or "").replace("*", "")),
        lambda one: one.known_from,
        lambda one: one.effective_from,
        lambda one: one.id,
    )
    for rule in rules:
        best = max((rule(one) for one in entries), default=None)
        entries = [one for one in entries if rule(one) == best]
    return entries[0] if entries else None


def usd_per(currency, own, at):
    if currency == "USD":
        return Fraction(1)
    begun = [one for one in own if isinstance(one, FxRate) and one.currency == currency and one.effective_from <= at]
    last = max(begun, key=lambda one: (one.effective_from, one.known_from, one.id), default=None)
    if last is None or (last.effective_to is not None and at >= last.effective_to):
        return None
    return Fraction(last.usd_per_unit)


def kept(price):
    return Fraction(round(price * 10**18), 10**18)


def list_prices(own, call):
    """(prices by key or None, words that the price entry begins with)."""
    override = deciding([one for one in own if isinstance(one, Override) and matches(one, call) and holds(one, call)])
    if override is None:
        return listed_prices(call)
    words = f"override {override.id} "
    if override.like is not None:
        prices, _ = listed_prices({**call, "provider": "openai", "model": "gpt-4o"})
        times = 1 if override.multiply is None else Fraction(override.multiply)
        return {key: kept(Fraction(price) * times) for key, price in prices.items()}, words
    prices = dict(override.prices)
    for above, at_size in override.above:
        if (call["input_tokens"] or 0) > above:
            prices |= at_size
    rate = usd_per(override.currency, own, call["started_at"])
    return None if rate is None else {key: kept(Fraction(price) * rate) for key, price in prices.items()}, words


def billed_prices(own, call, prices):
    """(prices or None, the terms that decide)."""
    terms = [one for one in own if isinstance(one, Term) and matches(one, call) and holds(one, call)]
    billed, used = dict(prices), []
    for key in PER:
        about = [one for one in terms if one.prices is not None and key in one.prices]
        if key in prices:
            about += [one for one in terms if one.percent_off is not None and (not one.keys or key in one.keys)]
        term = deciding(about)
        if term is None:
            continue
        used.append(term)
        if term.percent_off is not None:
            billed[key] = kept(Fraction(prices[key]) * (100 - Fraction(term.percent_off)) / 100)
            continue
        rate = usd_per(term.currency, own, call["started_at"])
        billed[key] = None if rate is None else kept(Fraction(term.prices[key]) * rate)
    return None if None in billed.values() else billed, used


def bill(call, prices):
    """(status, USD as a fraction or None)."""
    units = {one["key"]: one["value"] for one in call["units"] or ()}
    tokens = {key for key in prices if key.endswith("_mtok")}
    if prices and not tokens and "requests_kcount" not in prices:
        unit_keys = {"web_searches": "web_searches_kcount", "audio_seconds": "audio_hours"}
        if not any(unit_keys[unit] in prices for unit in units):
            return "unpriced", None
    quantities = {
        "cache_read_mtok": call["cache_read_tokens"],
        "output_reasoning_mtok": call["reasoning_tokens"] if call["output_tokens"] is not None else 0,
        "web_searches_kcount": units.get("web_searches", 0),
        "audio_hours": units.get("audio_seconds", 0),
        "requests_kcount": 1,
    }
    read = call["cache_read_tokens"] if "cache_read_mtok" in prices else 0
    quantities["input_mtok"] = call["input_tokens"] - read
    thought = quantities["output_reasoning_mtok"] if "output_reasoning_mtok" in prices else 0
    quantities["output_mtok"] = (call["output_tokens"] or 0) - thought
    total = sum((Fraction(quantities[key]) * Fraction(price) / PER[key] for key, price in prices.items()), Fraction(0))
    missing = call["output_tokens"] is None and prices.get("output_mtok", 0) > 0
    unpriced = prices and (
        (units.get("web_searches") and "web_searches_kcount" not in prices)
        or (units.get("audio_seconds") and "audio_hours" not in prices)
    )
    amount = Fraction(round(total * 10**12), 10**12)
    if missing and not amount:
        amount = None
    return "partial" if missing or unpriced else "priced", amount


def oracle(own, call):
    """(status, list cost, billed cost, how the entry begins, terms that it names)."""
    prices, words = list_prices(own, call)
    hardware = Fraction(0) if call["billing"] == "self_hosted" else None
    if prices is None:
        return "unpriced", None, hardware, None, []
    status, cost = bill(call, prices)
    if status == "unpriced":
        return status, None, hardware, None, []
    billed, terms = billed_prices(own, call, prices)
    amount = None if billed is None or cost is None else bill(call, billed)[1]
    if hardware is not None:
        return status, cost, hardware, words, []
    return status, cost, amount, words, terms


# ---- random books and the calls at their edges

WALLS = (time(0), time(1, 30), time(2, 30), time(6), time(21, 59, 59, 999_999), time(22))
ABOUT = (
    *[{}] * 4,
    {"provider": "OpenAI"},
    {"provider": "acme", "region": "eu"},
    {"region": "eu"},
    {"endpoint_host": "api.acme.dev"},
    {"service_tier": "flex"},
)
randoms = st.randoms(use_true_random=False)


def random_decimal(random, most, places):
    return Decimal(random.randrange(most * 10**places + 1)).scaleb(-places)


def random_prices(random):
    keys = random.sample(list(PER), random.randint(1, 5))
    return {key: random_decimal(random, *random.choice([(50, 4), (1, 12)])) for key in keys}


def random_instant(random):
    return random.choice(DAYS) + random.choice([-30, 0, 0, 0, 1, 13]) * HOUR + random.choice([0, 0, 1]) * US


def random_book(random):
    """Stored entries, with ids and instants at which they became known."""
    return [random_entry(random, number + 1) for number in range(random.randint(2, 14))]


def random_entry(random, number):
    start = min(random_instant(random), random_instant(random))
    end = random.choice([None, None, random_instant(random)])
    stored = {
        "id": number, "effective_from": start, "effective_to": end if end and end > start else None,
        "known_from": datetime(2026, 1, 1, tzinfo=UTC) + random.randint(0, 3) * HOUR, "source": "contract",
    }  # fmt: skip
    about = random.choice(ABOUT)
    model = random.choice(["gpt-4o", "gpt-4o", "gpt-4o", "Acme-7b", "acme-*", "*"])
    currency = random.choice(["USD", "USD", "EUR"])
    match random.choice(["own", "own", "own", "like", "percent", "percent", "contract", "fx"]):
        case "own":
            start_wall, end_wall = random.choice([(None, None), random.sample(WALLS, 2)])
            sizes = sorted(random.sample([0, 500, 1_000, 1_500], random.randint(0, 2)))
            return Override(
                model=model, prices=random_prices(random), above=tuple((size, random_prices(random)) for size in sizes),
                currency=currency, daily_from=start_wall, daily_to=end_wall, zone=random.choice(ZONES),
                **about, **stored,
            )  # fmt: skip
        case "like":
            times = random.choice([None, random_decimal(random, 3, 6)])
            return Override(model=model, like="openai/gpt-4o", multiply=times, **about, **stored)
        case "percent":
            keys = tuple(random.sample(list(PER), random.choice([0, 0, 1, 2])))
            percent = random_decimal(random, 99, 3) + Decimal("0.001")
            return Term(model=random.choice([None, model]), percent_off=percent, keys=keys, **about, **stored)
        case "contract":
            return Term(model=model, prices=random_prices(random), currency=currency, **about, **stored)
    return FxRate(currency="EUR", usd_per_unit=random_decimal(random, 2, 6) + US_CENT, **stored)


def random_calls(random, own):
    """Calls at and around every instant at which something of the book changes."""
    edges = [at for one in own for at in (one.effective_from, one.effective_to) if at is not None]
    edges += [*CHANGES, *DAYS]
    for one in own:
        if isinstance(one, Override) and one.daily_from is not None:
            for wall in (one.daily_from, one.daily_to):
                there = datetime.combine(random.choice(DAYS), wall, tzinfo=ZoneInfo(one.zone))
                edges += [there.astimezone(UTC), there.replace(fold=1).astimezone(UTC)]
    return [random_call(random, random.choice(edges)) for _ in range(40)]


def random_call(random, edge):
    total = random.choice([0, 1, 500, 501, 1_000, 1_001, 1_500, 1_501, 123_457])
    output = random.choice([0, 7, 99_991, 99_991, None])
    told = [{"key": "web_searches", "value": random.randint(0, 3)}, {"key": "audio_seconds", "value": 61}]
    return {
        "provider": random.choice(["openai", "openai", "openai", "acme"]),
        "model": random.choice(["gpt-4o", "gpt-4o", "gpt-4o", "acme-7b", "acme-70b", "other"]),
        "endpoint_host": random.choice([None, None, "api.acme.dev"]),
        "region": random.choice([None, "eu", "US"]),
        "service_tier": random.choice([None, None, "flex"]),
        "billing": random.choice([None, "api", "api", "self_hosted"]),
        "started_at": edge + random.choice([-1, 0, 0, 1]) * US,
        "input_tokens": total,
        "cache_read_tokens": random.choice([0, total // 3, total]),
        "output_tokens": output,
        "reasoning_tokens": (output or 0) // 2,
        "units": random.choice([None, None, told, told[:1], told[1:]]),
    }


SCHEMA = {
    "started_at": pl.Datetime("us", "UTC"),
    "units": pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})),
    **dict.fromkeys(("endpoint_host", "region", "service_tier", "billing"), pl.String),
    **dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"), pl.Int64),
}


@settings(max_examples=50, deadline=None)
@given(randoms)
def test_a_random_book_prices_every_call_as_its_entries_say(random):
    own = random_book(random)
    calls = random_calls(random, own)
    book = BASE.with_own(own)
    priced = book.price(pl.DataFrame(calls, schema_overrides=SCHEMA))
    for call, row in zip(calls, priced.iter_rows(named=True), strict=True):
        status, cost, billed, words, terms = oracle(own, call)
        assert (row["price_status"], row["list_cost_usd"], row["billed_cost_usd"]) == (status, cost, billed), call
        entry = row["price_entry"]
        assert (entry or "").startswith(words) if words else entry is None
        named = [part.split()[0] for part in (entry or "").split(" term ")[1:]]
        assert set(named) == {str(term.id) for term in terms}
        known = [
            row[name] for name in row if name.startswith("list_") and name != "list_cost_usd" and row[name] is not None
        ]
        assert cost is None or sum(known) == row["list_cost_usd"]


@settings(max_examples=40, deadline=None)
@given(randoms)
def test_every_amount_of_a_random_book_is_explained_to_the_last_digit(random):
    own = random_book(random)
    call = random_calls(random, own)[0]
    book = BASE.with_own(own)
    row = book.price(pl.DataFrame([call], schema_overrides=SCHEMA)).row(0, named=True)
    why = book.explain({name: value for name, value in call.items() if value is not None})
    assert (why.list_cost_usd, why.billed_cost_usd) == (row["list_cost_usd"], row["billed_cost_usd"])
    assert why.entry == row["price_entry"] or row["price_status"] == "unpriced"
    assert why.reason or (row["price_status"] == "priced" and row["billed_cost_usd"] is not None)
    for lines, rounding, cost, free in (
        (why.lines, why.rounding_usd, why.list_cost_usd, False),
        (why.billed_lines, why.billed_rounding_usd, why.billed_cost_usd, call["billing"] == "self_hosted"),
    ):
        if cost is None or free:
            continue
        assert sum((Fraction(line.amount_usd) for line in lines), Fraction(0)) + Fraction(rounding) == cost
        for line in lines:
            exact = Fraction(line.quantity) * Fraction(line.unit_price_usd) / line.per
            assert abs(exact - Fraction(line.amount_usd)) <= (Fraction(1, 10**24) if line.per == 3600 else 0)
    deciding_terms = oracle(own, call)[4]
    assert {term.id for term in why.terms} == {term.id for term in deciding_terms}


@settings(max_examples=15, deadline=None)
@given(randoms)
def test_order_batching_and_what_was_asked_before_change_no_digit(random):
    own = random_book(random)
    calls = pl.DataFrame(random_calls(random, own), schema_overrides=SCHEMA)
    book = BASE.with_own(own)
    apart = pl.concat([book.price(part) for part in calls.iter_slices(3)])
    order = random.sample(range(len(calls)), len(calls))
    assert BASE.with_own(own).price(calls).equals(apart)
    assert book.price(calls[order]).equals(apart[order])
    same = BASE.with_own(random.sample(own, len(own)))
    assert same.version == book.version
    assert same.price(calls).equals(apart)

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millicent.dashboard import format as fmt

amounts = st.decimals(min_value=Decimal("-1e13"), max_value=Decimal("1e13"), places=12, allow_nan=False)
counts = st.integers(min_value=0, max_value=10**15)
SUFFIX = {"k": 3, "M": 6, "B": 9, "T": 12}


def read(text: str) -> Decimal:
    """What a person reads from a short text."""
    bare = text.replace("−", "-").replace("$", "").replace(",", "").replace("+", "")
    power = SUFFIX.get(bare[-1], 0)
    return Decimal(bare[:-1] if power else bare).scaleb(power)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        ("0", "$0"),
        ("433612.08", "$433.6k"),
        ("6209", "$6,209"),
        ("12.4", "$12.40"),
        ("0.584", "$0.584"),
        ("0.0123", "$0.0123"),
        ("0.0000001", "<$0.000001"),
        ("-0.0000001", "<−$0.000001"),
        ("-820", "−$820"),
        ("999.999", "$1,000"),
        ("9995", "$9,995"),
        ("9999.6", "$10.0k"),
        ("999960", "$1.00M"),
        ("27e9", "$27.0B"),
    ],
)
def test_money_is_short_and_rounds_into_the_next_unit(value, text):
    assert fmt.usd(value and Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "wh", "—"),
        ("0", "wh", "0 Wh"),
        ("842", "wh", "842 Wh"),
        ("999.6", "wh", "1.00 kWh"),
        ("4380000", "wh", "4.38 MWh"),
        ("1730000", "g", "1.73 t"),
        ("-62400", "g", "−62.4 kg"),
        ("5e12", "g", "5,000 kt"),
        ("3600", "joules", "3.60 kJ"),
        ("4023", "hours", "4,023 h"),
        ("0.25", "hours", "0.250 h"),
        ("401.4", "g_per_mtok", "401 g"),
        ("0.3456", "tokens_per_joule", "0.346"),
        ("1664", "tokens_per_second", "1,664"),
        ("0.0000001", "tokens_per_joule", "<0.000001"),
    ],
)
def test_quantities_are_told_in_the_multiple_that_people_say(value, unit, text):
    assert fmt.value_text(value and Decimal(value), unit) == text


@given(amounts)
@example(Decimal("99.995"))
@example(Decimal("0.9995"))
def test_money_reads_back_within_half_a_percent(value):
    text = fmt.usd(value)
    assert len(text) <= 12
    if not text.startswith("<"):
        assert abs(read(text) - value) <= abs(value) * Decimal("0.0051")


@given(amounts, amounts)
def test_more_money_never_reads_as_less(one, other):
    low, high = sorted((one, other))
    texts = fmt.usd(low), fmt.usd(high)
    if not any(text.startswith("<") for text in texts):
        assert read(texts[0]) <= read(texts[1])


@given(counts)
def test_tokens_read_back_within_half_a_percent(value):
    text = fmt.tokens(value)
    assert len(text) <= 6
    assert abs(read(text) - value) <= value * Decimal("0.0051")


@given(st.integers(min_value=0, max_value=99_999))
def test_counts_are_exact_up_to_a_hundred_thousand(value):
    assert int(fmt.count(value).replace(",", "")) == value


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, "—"),
        ("0", "0%"),
        ("1", "100%"),
        ("0.166", "16.6%"),
        ("0.99999", ">99.9%"),
        ("0.0001", "<0.1%"),
        ("12.3", "1,230.0%"),
    ],
)
def test_a_share_never_rounds_to_all_or_nothing(ratio, text):
    assert fmt.percent(ratio and Decimal(ratio)) == text


def test_less_than_a_cent_is_never_shown_as_zero_dollars():
    assert fmt.usd_exact(Decimal("0.000012")) == "$0.0000120"
    assert fmt.usd_exact(Decimal("433612.075")) == "$433,612.08"
    assert fmt.usd_exact(None) == "—"


def moved(now, prior, unit="usd", better="lower"):
    return fmt.change(None if now is None else Decimal(now), None if prior is None else Decimal(prior),
                      unit=unit, better=better)  # fmt: skip


def test_a_change_has_size_direction_and_meaning():
    assert moved("110.6", "100") == fmt.Change("10.6%", "up", "bad")
    assert moved("90", "100") == fmt.Change("10.0%", "down", "good")
    assert moved("110", "100", better="higher").tone == "good"
    assert moved("110", "100", better="neither").tone == "neutral"
    assert moved("0.166", "0.187", unit="ratio") == fmt.Change("2.1 pp", "down", "good")


def test_a_change_that_cannot_be_told_is_not_told():
    assert moved(None, "1") is None
    assert moved("1", None) is None
    assert moved("1", "0").text == "new"
    assert moved("100.00001", "100") == fmt.Change("0.0%", "flat", "neutral")


def test_a_signed_amount_always_has_its_sign():
    assert [fmt.usd_change(Decimal(n)) for n in ("41700", "-820", "0")] == ["+$41.7k", "−$820", "$0"]


def test_a_period_is_told_with_its_last_day_and_hour():
    start = datetime(2026, 10, 26, tzinfo=UTC)
    assert fmt.span(start, datetime(2026, 11, 23, tzinfo=UTC)) == "26 Oct – 22 Nov 2026"
    assert fmt.span(start, datetime(2026, 11, 22, 14, tzinfo=UTC), year=False) == "26 Oct – 22 Nov, to 14:00"
    assert fmt.span(datetime(2025, 12, 30, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)) == "30 Dec 2025 – 1 Jan 2026"
    assert fmt.span(start, datetime(2026, 10, 27, tzinfo=UTC)) == "26 Oct 2026"


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("nvidia-h100-sxm", "H100"),
        ("nvidia-h100-pcie", "H100 PCIe"),
        ("nvidia-gb200-nvl72", "GB200 NVL72"),
        ("amd-mi355x", "MI355X"),
        ("google-tpu-v7", "TPU v7"),
        ("nvidia-jetson-agx-thor", "AGX Thor"),
        ("our-own-chip", "our-own-chip"),
        ("", ""),
    ],
)
def test_accelerators_have_the_names_people_use(identifier, name):
    assert fmt.accelerator(identifier) == name

"""How amounts and shares are written in what alerts tell."""

from decimal import Decimal

import pytest

from millicent.collector.alerts import telling


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        ("99.994", "USD", "$99.99"),
        ("1234.5", "EUR", "€1,234"),
        ("-5", "CHF", "\N{MINUS SIGN}CHF 5.00"),
        ("0", "USD", "$0.00"),
        ("0.5", "USD", "$0.50"),
        ("0.002009", "USD", "$0.002009"),
    ],
)
def test_amounts_are_written_for_people(amount, currency, said):
    assert telling.money(Decimal(amount), currency) == said


def test_shares_are_never_rounded_up():
    assert telling.percent(Decimal("0.9999")) == "99%"
    assert telling.percent(Decimal("0.01999")) == "1.9%"

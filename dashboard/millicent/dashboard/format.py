"""Numbers as short text: money, tokens, shares, changes and dates, never through a binary float.

Amounts are in the currency, and instants in the time zone, that `present` set for the answer at hand: USD and UTC
before that. Unknown (None) is an em dash. Rounding is half-even on the decimal value, and a value that rounds up to the
next unit is written in that unit ($999,950 is $1.00M, not $1000.0k).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from millicent.warehouse.metrics import Better, Unit

Number = Decimal | int
Tone = Literal["good", "bad", "neutral"]

UNKNOWN: Final = "—"
MINUS: Final = "\N{MINUS SIGN}"
_STEPS: Final = ((12, "T"), (9, "B"), (6, "M"), (3, "k"))
_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_CENT: Final = Decimal("0.01")
_LEAST_USD: Final = Decimal("0.000001")
_EXACT_BELOW_COUNT: Final = 100_000
_LEAST: Final = Decimal("0.000001")
_WHOLE_FROM: Final = Decimal("999.5")
_UNITS: Final[dict[str, str]] = {
    "hours": "h",
    "s": "s",
    "ms": "ms",
    "joules": "J",
    "wh": "Wh",
    "g": "g",
    "g_per_mtok": "g",
}
_MULTIPLES: Final[dict[str, tuple[tuple[int, str], ...]]] = {
    "J": ((12, "TJ"), (9, "GJ"), (6, "MJ"), (3, "kJ")), "Wh": ((9, "GWh"), (6, "MWh"), (3, "kWh")),
    "g": ((9, "kt"), (6, "t"), (3, "kg")), "h": (), "s": (), "ms": (),
}  # fmt: skip
"""Powers of ten of each unit, largest first, and how they are called."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """The currency (ISO 4217) that amounts are in, and the time zone that instants are told in."""

    currency: str = "USD"
    zone: tzinfo = UTC

    @property
    def sign(self) -> str:
        """What stands before an amount: `$`, `€`, `CHF `."""
        return _SIGNS.get(self.currency, f"{self.currency} ")


_SIGNS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩", "ILS": "₪", "UAH": "₴"}
_shown: Final[ContextVar[Presentation]] = ContextVar("shown", default=Presentation())  # noqa: B039 - it is frozen


def present(presentation: Presentation) -> None:
    """Ask and write whatever the current context still answers in that currency and time zone."""
    _shown.set(presentation)


def presented() -> Presentation:
    """The currency and time zone in force."""
    return _shown.get()


@contextmanager
def stored() -> Iterator[None]:
    """Write amounts as they are stored, in USD, for as long as the block lasts: those that no query converted."""
    before = _shown.set(replace(_shown.get(), currency="USD"))
    try:
        yield
    finally:
        _shown.reset(before)


def unit() -> str:
    """What amounts are in, where a heading says it for all: `$`, `€`, `CHF`."""
    return _shown.get().sign.strip()


def local(instant: datetime) -> datetime:
    """The same instant by the clock of the time zone in force."""
    return instant.astimezone(_shown.get().zone)


def usd(value: Number | None) -> str:
    """`$433.6k`, `$6,209`, `$12.40`, `$0.584`: short, but enough digits to tell rows apart.

    Below a dollar three significant digits are kept; what is under a ten-thousandth of a cent is only bounded.
    """
    if value is None:
        return UNKNOWN
    sign, size = _split(value)
    if 0 < size < _LEAST_USD:
        return f"<{sign}{_shown.get().sign}{_LEAST_USD:f}"
    return f"{sign}{_shown.get().sign}{_usd_size(size)}"


def usd_exact(value: Number | None) -> str:
    """To the cent with thousands separators: `$433,612.08`; less than a cent as in `usd`."""
    if value is None:
        return UNKNOWN
    sign, size = _split(value)
    if size < _CENT:
        return usd(value)
    return f"{sign}{_shown.get().sign}{_fixed(size, 2)}"


def usd_change(value: Number) -> str:
    """With its sign, always: `+$41.7k`, `−$820`."""
    text = usd(value)
    return text if value <= 0 else f"+{text}"


def tokens(value: Number | None) -> str:
    """Three significant digits from a thousand on: `742B`, `61.2B`, `1.23M`, `980`."""
    if value is None:
        return UNKNOWN
    sign, size = _split(value)
    return sign + (_scaled(size) if size >= 1000 else _fixed(size, 0))


def count(value: Number | None) -> str:
    """Exact with thousands separators up to 99,999, then three significant digits."""
    if value is None:
        return UNKNOWN
    sign, size = _split(value)
    return sign + (_fixed(size, 0) if size < _EXACT_BELOW_COUNT else _scaled(size))


def percent(ratio: Number | None, digits: int = 1) -> str:
    """`16.6%`; a share that is not whole never rounds to 100% or 0%: `>99.9%`, `<0.1%`."""
    if ratio is None:
        return UNKNOWN
    sign, size = _split(ratio)
    scaled = _fixed(size * 100, digits)
    if size < 1 and scaled == _fixed(Decimal(100), digits):
        return f">{_fixed(100 - Decimal(1).scaleb(-digits), digits)}%"
    if size and not Decimal(scaled.replace(",", "")):
        return f"<{sign}{_fixed(Decimal(1).scaleb(-digits), digits)}%"
    return f"{sign}{'100' if size == 1 else '0' if not size else scaled}%"


def plain(value: Number | None) -> str:
    """Three significant digits, exact with thousands separators from a thousand on: `0.0123`, `45.7`, `1,664`."""
    if value is None:
        return UNKNOWN
    sign, size = _split(value)
    if 0 < size < _LEAST:
        return f"<{sign}{_LEAST:f}"
    return sign + (_small(size) if size < _WHOLE_FROM else count(size))


def scaled(value: Number | None, unit: str) -> str:
    """A quantity in the multiple of its unit that leaves 1 to 999: `8.41 kWh`, `1.73 t` of grams, `750 g`."""
    if value is None:
        return UNKNOWN
    sign, size = _split(value)
    for power, name in _MULTIPLES[unit]:
        if size >= Decimal(f"0.9995e{power}"):
            part = _WIDE.scaleb(size, -power)
            return f"{sign}{_small(part) if part < _WHOLE_FROM else count(part)} {name}"
    return f"{plain(value)} {unit}"


def value_text(value: Number | None, unit: Unit) -> str:
    """The short text of a measure of this unit."""
    if value is None:
        return UNKNOWN
    if unit in {"usd", "usd_per_mtok"}:
        return usd(value)
    if unit == "ratio":
        return percent(value)
    if unit in _UNITS:
        return scaled(value, _UNITS[unit])
    if unit in {"tokens_per_joule", "tokens_per_second"}:
        return plain(value)
    return tokens(value) if unit == "tokens" else count(value)


@dataclass(frozen=True, slots=True)
class Change:
    """How a value moved: its size as text, its direction, and whether that is good news."""

    text: str
    direction: Literal["up", "down", "flat"]
    tone: Tone

    @property
    def arrow(self) -> str:
        return {"up": "▲", "down": "▼", "flat": ""}[self.direction]

    @property
    def words(self) -> str:
        """For those who hear it: `up 10.6%`."""
        return "unchanged" if self.direction == "flat" else f"{self.direction} {self.text}"


def change(value: Number | None, prior: Number | None, *, unit: Unit, better: Better, digits: int = 1) -> Change | None:
    """The move from `prior` to `value`: percentage points for a ratio, else percent of the prior value.

    None when either is unknown. From zero there is no percentage: the text is `new`.
    """
    if value is None or prior is None:
        return None
    moved = _WIDE.subtract(Decimal(value), Decimal(prior))
    if unit == "ratio":
        text = f"{_fixed(abs(moved) * 100, digits)} pp"
    elif prior == 0:
        text = "new" if moved else "0%"
    else:
        text = f"{_fixed(abs(_WIDE.divide(moved, Decimal(prior))) * 100, digits)}%"
    if text != "new" and not any(digit in text for digit in "123456789"):
        return Change(text, "flat", "neutral")
    direction: Literal["up", "down"] = "up" if moved > 0 else "down"
    if better == "neither":
        return Change(text, direction, "neutral")
    return Change(text, direction, "good" if (direction == "up") == (better == "higher") else "bad")


def day(instant: datetime) -> str:
    """`22 Nov`, in the time zone in force."""
    at = local(instant)
    return f"{at.day} {at:%b}"


def moment(instant: datetime) -> str:
    """`22 Nov 14:00`, in the time zone in force."""
    return f"{day(instant)} {local(instant):%H:%M}"


def span(start: datetime, end: datetime, *, year: bool = True) -> str:
    """A half-open period as people say it, last day included: `26 Oct – 22 Nov 2026`, `… , to 14:00`."""
    begun, last, over = local(start), local(end - timedelta(microseconds=1)), local(end)
    first = day(start) if begun.year == last.year else f"{day(start)} {begun.year}"
    until = f"{day(last)} {last.year}" if year else day(last)
    days = until if begun.date() == last.date() else f"{first} – {until}"
    return days if over.time() == datetime.min.time() else f"{days}, to {over:%H:%M}"


def zone() -> str:
    """Name of the time zone in force: `UTC`, `Europe/Berlin`."""
    return str(_shown.get().zone)


_MAKERS: Final = (
    "nvidia-jetson-",
    "nvidia-",
    "amd-",
    "google-",
    "aws-",
    "intel-",
    "huawei-",
    "microsoft-",
    "meta-",
    "apple-",
)
_WORDS: Final = {"pcie": "PCIe", "rtx": "RTX", "ada": "Ada", "pro": "PRO", "max": "Max", "agx": "AGX", "orin": "Orin",
                 "thor": "Thor", "gaudi2": "Gaudi 2", "gaudi3": "Gaudi 3", "trainium1": "Trainium1",
                 "trainium2": "Trainium2", "trainium3": "Trainium3", "inferentia2": "Inferentia2",
                 "rubin": "Rubin", "ultra": "Ultra", "coral": "Coral", "edgetpu": "Edge TPU"}  # fmt: skip


def accelerator(identifier: str) -> str:
    """A catalog id as people say it: `nvidia-h100-pcie` is `H100 PCIe`, `google-tpu-v7` is `TPU v7`.

    The plain form of a data-centre part is left out (`nvidia-h100-sxm` is `H100`); anything that is not a catalog
    id comes back as it is.
    """
    maker = next((maker for maker in _MAKERS if identifier.startswith(maker)), None)
    if maker is None:
        return identifier
    parts = [part for part in identifier.removeprefix(maker).split("-") if part != "sxm"]
    return " ".join(
        _WORDS.get(part) or (part if part[:1] == "v" and part[1:2].isdigit() else part.upper()) for part in parts
    )


def _split(value: Number) -> tuple[str, Decimal]:
    exact = Decimal(value)
    return (MINUS if exact < 0 else "", abs(exact))


def _fixed(size: Decimal, digits: int) -> str:
    return f"{_WIDE.quantize(size, Decimal(1).scaleb(-digits)):,}"


def _significant(size: Decimal, digits: int) -> str:
    """`size` in 1..999 with this many significant digits."""
    whole = 1 if size < 10 else 2 if size < 100 else 3
    return _fixed(size, max(digits - whole, 0))


def _scaled(size: Decimal) -> str:
    """`size` of a thousand or more in the unit that leaves 1 to 999 after rounding."""
    for power, suffix in _STEPS:
        if size >= Decimal(f"0.9995e{power}"):
            return _significant(_WIDE.scaleb(size, -power), 3) + suffix
    return _fixed(size, 0)


def _small(size: Decimal) -> str:
    """`size` below a thousand with three significant digits."""
    if size >= Decimal("0.9995"):
        return _significant(size, 3)
    return _fixed(size, 2 - size.adjusted()) if size else "0"


def _usd_size(size: Decimal) -> str:
    if size >= Decimal("999.95e3"):
        return _scaled(size)
    if size >= Decimal("9999.5"):
        return _fixed(_WIDE.scaleb(size, -3), 1) + "k"
    if size >= Decimal("99.995"):
        return _fixed(size, 0)
    if size >= Decimal("0.9995"):
        return _fixed(size, 2)
    return _fixed(size, 2 - size.adjusted()) if size else "0"

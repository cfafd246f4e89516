"""What users add to the catalog: accelerators, regions, PUE and engines of their own, in TOML.

    [[accelerator]]
    id = "nvidia-h100-sxm"              # a row of the catalog: what is given here takes the place of what is there
    capex_usd_typical = 27_400
    capex_scope = ["typical=server_share"]
    sources = ["capex_typical=purchase order 4711"]
    as_of = "2026-11"
    confidence = "high"

Tables are `[[accelerator]]`, `[[region]]`, `[[pue]]` and `[[engine]]`, fields the columns of the tables. A new id is a
new row. A number without a source is refused: nobody could check it later.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from millicent.pricing.catalog.rows import SOURCE_NAMES, Accelerator, Engine, Pue, Region, Row, columns
from millicent.pricing.checking import near

TABLES: Final[Mapping[str, type[Row]]] = {"accelerator": Accelerator, "region": Region, "pue": Pue, "engine": Engine}
ID: Final[Mapping[type[Row], str]] = {Accelerator: "id", Region: "region_id", Pue: "scope", Engine: "id"}
CONFIDENCE: Final = ("high", "medium", "low")

_FIRST_YEAR, _LAST_YEAR = 1990, 2100
_LARGEST: Final = Decimal(10) ** 12
_DECIMALS: Final = 12
_LONGEST: Final = 2048
_DATE: Final = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_NUMBERS: Final = (Decimal | None, Decimal)
_OF_PRICE: Final = ("price_source", "price_basis", "price_year", "price_confidence")
_OF_CARBON: Final = ("carbon_source", "carbon_basis", "carbon_year")


class BadCatalogError(ValueError):
    """An extension that cannot be taken; `problems` are all that was found, each with value, rule and remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def read_toml(text: str, rows: Mapping[type[Row], tuple[Row, ...]]) -> Mapping[type[Row], tuple[Row, ...]]:
    """The rows of a catalog with those of an extension: rows of the same id changed in place, new ones at the end.

    Raises:
        BadCatalogError: naming every problem with its table and its number from 1.
    """
    try:
        told = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise BadCatalogError([f"the file is not TOML: {error}"]) from error
    problems = [
        f"[[{name}]] is no table of the catalog{near(name, TABLES)}: write {', '.join(TABLES)}"
        if name not in TABLES
        else f"[{name}] is one table: write [[{name}]], once per row"
        for name, tables in told.items()
        if name not in TABLES or not isinstance(tables, list)
    ]
    found: dict[type[Row], tuple[Row, ...]] = {}
    for name, row_type in TABLES.items():
        tables = told.get(name, [])
        merged, wrong = _merged(name, row_type, tables if isinstance(tables, list) else [], rows[row_type])
        found[row_type] = merged
        problems += wrong
    if problems:
        raise BadCatalogError(problems)
    return found


def problems_of(row: Row) -> list[str]:
    """What is missing in a row for anybody to check it: a source, date or confidence of a value that it has."""
    always = _TELLING.get(type(row), ())
    own = getattr(row, "own", None) or columns(type(row))
    names = [name for name in columns(type(row)) if name in own or name in always]
    told = {name: value for name in names if (value := getattr(row, name)) not in (None, ())}
    return [f"{row.id}: {problem}" for problem in _unsourced(type(row), told)]


def _merged(
    name: str, row_type: type[Row], tables: list[Any], rows: tuple[Row, ...]
) -> tuple[tuple[Row, ...], list[str]]:
    by_id: dict[str, Row] = {row.id: row for row in rows}
    problems: list[str] = []
    told_ids: set[str] = set()
    for index, table in enumerate(tables, start=1):
        wrong: list[str] = []
        told = _typed(row_type, table, wrong)
        key = told.get(ID[row_type])
        if isinstance(key, str):
            if key in told_ids:
                wrong.append(f"{ID[row_type]} {key!r} is told twice: join the two tables")
            told_ids.add(key)
        base = by_id.get(key) if isinstance(key, str) else None
        wrong += _unsourced(row_type, told)
        wrong += _missing(row_type, told, base)
        wrong += _taken(row_type, told, by_id.values())
        problems += [f"[[{name}]] {index}: {problem}" for problem in wrong]
        if not wrong:
            made = _made(row_type, told, base)
            by_id[made.id] = made
    return tuple(by_id.values()), problems


def _made(row_type: type[Row], told: Mapping[str, Any], base: Row | None) -> Row:
    if base is None:
        return row_type(**told)
    beside: dict[str, Any] = {"base": base, "own": frozenset(told)} if isinstance(base, Accelerator | Engine) else {}
    return replace(base, **told, **beside)


def _typed(row_type: type[Row], table: Any, problems: list[str]) -> dict[str, Any]:
    """The fields of a table by the types of their columns; what cannot be one is a problem."""
    if not isinstance(table, Mapping):
        problems.append(f"{table!r} is no table: write its fields below [[…]]")
        return {}
    known = columns(row_type)
    told: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            problems.append(f"{name} is no field{near(name, known)}: write one of {', '.join(known)}")
            continue
        read, problem = _field(name, value, known[name])
        if problem:
            problems.append(f"{name} {problem}")
        else:
            told[name] = read
    return told


def _field(name: str, value: Any, kind: Any) -> tuple[Any, str]:
    if kind in _NUMBERS:
        return _number(name, value)
    if kind == int | None:
        fits = isinstance(value, int) and not isinstance(value, bool)
        if not fits or (name.endswith("year") and not _FIRST_YEAR <= value <= _LAST_YEAR) or value < 0:
            what = f"a year from {_FIRST_YEAR} to {_LAST_YEAR}" if name.endswith("year") else "a whole number"
            return None, f"{value!r} is not {what}: write digits without quotes"
        return value, ""
    if kind == tuple[str, ...]:
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) and part.strip() for part in parts):
            return None, f'{value!r} is not a list of texts: write ["…", "…"]'
        return tuple(part.strip() for part in parts), ""
    return _text(name, value)


def _text(name: str, value: Any) -> tuple[Any, str]:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
        return (
            None,
            f"{str(value)[:40]!r} is not a text of 1 to {_LONGEST} characters: put it in quotes, or leave it out",
        )
    text = value.strip()
    if name.endswith("confidence") and text not in CONFIDENCE:
        return None, f"{text!r} is not one of {', '.join(CONFIDENCE)}: say how sure the figures are"
    if name == "as_of" and not _DATE.fullmatch(text):
        return None, f"{text!r} is no date: write 2026, 2026-11 or 2026-11-25"
    return text, ""


def _number(name: str, value: Any) -> tuple[Any, str]:
    try:
        number = Decimal(value) if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not 0 <= number <= _LARGEST:
        return None, f"{value!r} is not a number from 0 to {_LARGEST:,}: write digits with a point, without a unit"
    if number != round(number, _DECIMALS):
        return None, f"{value} has more than {_DECIMALS} decimals: round it"
    if name in {"pue", "pue_low", "pue_high"} and number < 1:
        return None, f"{value} is below 1, the power of the IT equipment alone: write facility power ÷ IT power"
    return number, ""


def _missing(row_type: type[Row], told: Mapping[str, Any], base: Row | None) -> Iterator[str]:
    needed = (ID[row_type],) if base is not None else _needed(row_type)
    for name in needed:
        if name not in told and name not in _TELLING.get(row_type, ()):
            yield f"{name} is missing: {_REMEDIES.get(name, 'a new row needs it')}"


def _unsourced(row_type: type[Row], told: Mapping[str, Any]) -> Iterator[str]:
    """Values that nobody could check: without a source, a date or how sure they are."""
    if row_type is Region:
        yield from _unsourced_region(told)
        return
    for name in _TELLING.get(row_type, ()):
        openly_unread = row_type is Engine and name == "sources" and told.get("verified") == "no" and "notes" in told
        if told.get(name) in (None, ()) and not openly_unread:
            yield f"{name} is missing: {_REMEDIES[name]}"
    if row_type is Accelerator:
        yield from _unsourced_numbers(told)


def _unsourced_region(told: Mapping[str, Any]) -> Iterator[str]:
    for value, telling in (("price_usd_per_kwh", _OF_PRICE), ("gco2e_per_kwh", _OF_CARBON)):
        lacking = [name for name in telling if name not in told]
        if value in told and lacking:
            yield f"{value} {told[value]} has no {', '.join(lacking)}: say what it was read from"
        if value not in told and len(lacking) < len(telling):
            yield f"{', '.join(name for name in telling if name in told)} tell of no {value}: write the number, too"


def _unsourced_numbers(told: Mapping[str, Any]) -> Iterator[str]:
    sources = told.get("sources") or ()
    names = {source.partition("=")[0].strip() for source in sources if source.partition("=")[2].strip()}
    for source in sources:
        name, equals, where = source.partition("=")
        if not equals or not where.strip():
            yield f'sources {source!r} does not say of what: write "spec=…" or "capex_typical=…"'
        elif name.strip() not in SOURCE_NAMES:
            meant = near(name.strip(), SOURCE_NAMES)
            yield f"sources {name.strip()!r} is no name of what was read{meant}: write one of {', '.join(SOURCE_NAMES)}"
    recalled = told.get("recalled_fields") or ()
    for column, kind in columns(Accelerator).items():
        if kind in _NUMBERS and column in told and column not in recalled:
            of = Accelerator.source_names(column)
            if not names & set(of):
                yield f'{column} {told[column]} has no source: add "{of[0]}=where it was read" to sources'


def _taken(row_type: type[Row], told: Mapping[str, Any], rows: Iterable[Row]) -> Iterator[str]:
    """Names that lead to another row first."""
    key, name = told.get(ID[row_type]), str(told.get("name", "")).lower()
    for row in rows:
        if name and row_type is not Pue and row.id != key and name == getattr(row, "name", "").lower():
            yield f"name {told['name']!r} is that of {row.id!r} already: change it, or change that row by its id"


def _needed(row_type: type[Row]) -> tuple[str, ...]:
    return tuple(name for name, kind in columns(row_type).items() if kind in (str, Decimal))


_TELLING: Final[Mapping[type[Row], tuple[str, ...]]] = {
    Accelerator: ("sources", "as_of", "confidence"),
    Pue: ("source", "confidence"),
    Engine: ("sources", "verified"),
}
"""What a row tells of itself, that each extension tells of what it adds."""

_REMEDIES: Final = {
    "id": "the id of a row of the catalog, or one of your own, such as acme-x1",
    "region_id": "the id of a region of the catalog, or one of your own, such as hall-3",
    "scope": 'a region\'s id, or "default/…" as the catalog has it',
    "source": "name the page, invoice or measurement that the figure can be checked against",
    "sources": "name the page, invoice or measurement that each figure can be checked against",
    "as_of": "write when the figures were read, such as 2026-11",
    "confidence": f"write how sure the figures are: {', '.join(CONFIDENCE)}",
    "verified": "write how the names were checked, such as own server read",
}

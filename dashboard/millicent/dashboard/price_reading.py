"""Entries of the price book as they are told: in a TOML file, in JSON, on the command line; one reading for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Final, get_type_hints

from millicent.pricing.book import PriceBook
from millicent.pricing.entries import (
    STORED,
    BadPricesError,
    BookEntry,
    Charge,
    FxRate,
    Override,
    Term,
    read,
    read_toml,
)
from millicent.warehouse.price_entries import body

MOST_BYTES: Final = 1 << 20
KINDS: Final = (Override, Term, FxRate, Charge)


def from_toml(text: str) -> list[BookEntry]:
    """The entries of a file.

    Raises:
        BadPricesError: with everything that is wrong with any of them.
    """
    return read_toml(text)


def from_json(text: bytes | str) -> list[BookEntry]:
    """The entries of `{"entries": […]}`, or the one that the object is; numbers are taken to their last digit.

    Raises:
        BadPricesError: with everything that is wrong with any of them.
    """
    try:
        told = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise BadPricesError(
            [f'the body is not JSON ({error}): write {{"entries": [{{"kind": "override", …}}]}}']
        ) from error
    rows = told.get("entries") if isinstance(told, dict) and "kind" not in told else [told]
    if not isinstance(rows, list):
        raise BadPricesError(['the body has no list of entries: write {"entries": [{"kind": "override", …}]}'])
    found, problems = list[BookEntry](), list[str]()
    for index, row in enumerate(rows, start=1):
        try:
            found.append(read(row))
        except BadPricesError as error:
            problems += [f"entry {index}: {problem}" for problem in error.problems]
    if problems:
        raise BadPricesError(problems)
    return found


def possible(entries: Sequence[BookEntry], book: PriceBook) -> PriceBook:
    """`book` with `entries` beside its own.

    Raises:
        BadPricesError: with everything in which they do not fit to its price data and rates.
    """
    made = book.with_own((*book.own, *entries))
    known = set(book.problems())
    problems = [problem for problem in made.problems() if problem not in known]
    if problems:
        raise BadPricesError(problems)
    return made


def new_and_present(told: Sequence[BookEntry], stored: Sequence[BookEntry]) -> tuple[list[BookEntry], list[BookEntry]]:
    """What of `told` is not among the live entries yet, and what is: as it is stored."""
    live = {_said(one): one for one in stored}
    found = {_said(one): one for one in told}
    new = [one for said, one in found.items() if said not in live]
    return new, [live[said] for said in found if said in live]


def schema() -> dict[str, Any]:
    """JSON Schema of a body with entries."""
    return {
        "type": "object", "required": ["entries"],
        "properties": {"entries": {"type": "array", "items": {"oneOf": [_schema(kind) for kind in KINDS]}}},
    }  # fmt: skip


def _said(entry: BookEntry) -> str:
    """What an entry says, apart from when it was stored and by whom."""
    return json.dumps(body(entry), sort_keys=True)


_TYPES: Final[tuple[tuple[Any, dict[str, Any]], ...]] = (
    (Mapping, {"type": "object", "additionalProperties": {"type": "string"}}),
    (tuple, {"type": "array"}),
    (Decimal, {"type": "string", "description": "a decimal number"}),
    (datetime, {"type": "string", "format": "date-time"}),
    (time, {"type": "string", "format": "time"}),
    (str, {"type": "string"}),
)


def _schema(kind: type[BookEntry]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    own = [one for one in fields(kind) if one.name not in STORED]
    members = {one.name: _type(hints[one.name]) for one in own}
    required = [one.name for one in own if one.default is MISSING]
    return {
        "type": "object", "title": kind.__name__, "required": ["kind", *required], "additionalProperties": False,
        "description": (kind.__doc__ or "").partition("\n")[0],
        "properties": {"kind": {"const": kind.kind}, **members},
    }  # fmt: skip


def _type(hint: Any) -> dict[str, Any]:
    told = repr(hint)
    return next((shape for of, shape in _TYPES if of.__name__ in told), {"type": "string"})

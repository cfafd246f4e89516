"""Counters and facts that stand inside an attribute's text, as columns beside the other attributes.

Text is JSON, or what Python prints of a dict. Whatever does not parse, such as text that was cut on its way, tells
nothing and stops nobody. The text itself is dropped as soon as it is read.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import polars as pl

from millicent.collector.dialects.dialect import IN, Dialect, Form

_IN_JSON: Final = {"'": '"', "None": "null", "True": "true", "False": "false"}
_WITHOUT_QUOTES: Final = r"""^[^"\\]*$"""
_OBJECT: Final = r"^\s*[A-Za-z_]\w*\("
_Tree = dict[str, "_Tree"]


def read(spans: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """`spans` with a text column for every place that the dialect reads inside its payloads, which go away."""
    there = {key: form for key, form in dialect.payloads.items() if key in spans.columns}
    if not there:
        return spans
    places = _places(dialect)
    columns = (
        column.alias(f"{key}{IN}{place}")
        for key, form in there.items()
        for place, column in _inside(_as_json(spans[key], form), places.get(key, ()))
    )
    return spans.drop(there).with_columns(*columns)


def _places(dialect: Dialect) -> dict[str, tuple[str, ...]]:
    """Per payload, the places inside it that anything of the dialect reads."""
    facts = (key for keys in dialect.facts.values() for key in keys)
    read_from: dict[str, dict[str, None]] = {}
    for whole in (*dialect.counters, *facts, *dialect.roots):
        key, inside, place = whole.partition(IN)
        if inside:
            read_from.setdefault(key, {})[place] = None
    return {key: tuple(places) for key, places in read_from.items()}


def _inside(texts: pl.Series, places: Sequence[str]) -> Iterable[tuple[str, pl.Series]]:
    """The text at each place; of an object that was cut, what stands first in it."""
    frame = texts.to_frame("text").with_columns(
        object=pl.when(pl.col("text").str.contains(r"^\s*\{(?s:.*)\}\s*$")).then("text")
    )
    type_ = _type(_tree(places))
    nothing = pl.Series([None], dtype=pl.String).str.json_decode(type_)
    decoded = pl.concat(_decoded(frame["object"], type_, nothing), rechunk=True)
    found = decoded.to_frame("object").select(_at(place).alias(place) for place in places)
    odd = frame.select(pl.when(decoded.is_null()).then("object"))["object"]
    if odd.null_count() < len(odd):  # something in it is of another kind than it should be
        found = _or(found, {place: odd.str.json_path_match(f"$.{place}") for place in places})
    cut = frame.select(pl.when(pl.col("object").is_null()).then("text"))["text"]
    if cut.null_count() < len(cut):
        first = r'^\s*\{{\s*"{}"\s*:\s*"([^"\\]{{1,200}})"'
        found = _or(found, {one: cut.str.extract(first.format(one), 1) for one in places if one.isidentifier()})
    return ((place, found[place]) for place in places)


def _decoded(objects: pl.Series, type_: pl.DataType, nothing: pl.Series) -> list[pl.Series]:
    """Objects as structs; `nothing` where one is not as it should be, which costs none of the others."""
    try:
        return [objects.str.json_decode(type_)]
    except pl.exceptions.ComputeError:
        half = len(objects) // 2
        parts = (objects[:half], objects[half:]) if half else ()
        return [one for part in parts for one in _decoded(part, type_, nothing)] or [nothing]


def _or(found: pl.DataFrame, other: Mapping[str, pl.Series]) -> pl.DataFrame:
    return found.with_columns(found[place].fill_null(told).alias(place) for place, told in other.items())


def _tree(places: Iterable[str]) -> _Tree:
    """Places as a tree of steps; a number in brackets is a step into a list."""
    tree: _Tree = {}
    for place in places:
        below = tree
        for step in _steps(place):
            below = below.setdefault(step, {})
    return tree


def _steps(place: str) -> list[str]:
    return place.replace("[", ".[").split(".")


def _type(tree: _Tree) -> pl.DataType:
    if not tree:
        return pl.String()
    if any(step.startswith("[") for step in tree):
        (below,) = tree.values()
        return pl.List(_type(below))
    return pl.Struct({step: _type(below) for step, below in tree.items()})


def _at(place: str) -> pl.Expr:
    found = pl.col("object")
    for step in _steps(place):
        in_list = step.startswith("[")
        found = found.list.get(int(step[1:-1]), null_on_oob=True) if in_list else found.struct.field(step)
    return found


def _as_json(texts: pl.Series, form: Form) -> pl.Series:
    """`texts` as JSON, if they are not already."""
    if form == "json" or texts.null_count() == len(texts):
        return texts
    text = pl.col(texts.name)
    frame = texts.to_frame()
    if texts.str.contains(_OBJECT).any():  # Usage(prompt_tokens=3, details=Details(...))
        as_dict = text.str.replace_all(r"[A-Za-z_]\w*\(", "{").str.replace_all(")", "}", literal=True)
        as_dict = as_dict.str.replace_all(r"(\w+)=", "'$1': ")
        frame = frame.with_columns(pl.when(text.str.contains(_OBJECT)).then(as_dict).otherwise(text))
    plain = text.str.replace_many(_IN_JSON)
    simple = frame.select(pl.when(text.str.contains(_WITHOUT_QUOTES)).then(plain))[texts.name]
    rest = frame.filter(text.is_not_null() & simple.is_null())[texts.name].unique()
    if rest.is_empty():
        return simple
    evaluated = [_literal(one) for one in rest]
    return simple.fill_null(frame[texts.name].replace_strict(rest, evaluated, default=None, return_dtype=pl.String))


def _literal(text: str) -> str | None:
    """JSON as it is, a Python literal as JSON; nothing of it is run. None when it is neither."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return text
    try:
        return json.dumps(ast.literal_eval(text), default=str)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None

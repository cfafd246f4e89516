"""The catalog over HTTP: accelerators, engines, regions and PUE, every value with where, when and how surely."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query
from starlette.exceptions import HTTPException

from millicent.dashboard import deployment_answers as answers
from millicent.dashboard.price_answers import plain
from millicent.pricing import catalog
from millicent.pricing.catalog.rows import Accelerator, Engine, Pue, Region, Row, columns

TABLES: Final[dict[str, type[Row]]] = {
    "accelerators": Accelerator, "engines": Engine, "regions": Region, "pue": Pue,
}  # fmt: skip
_PROVENANCE: Final = (
    "id", "region_id", "scope", "name", "match", "sources", "recalled_fields", "as_of", "verified", "source", "year",
    "price_source", "price_basis", "price_year", "price_confidence", "carbon_source", "carbon_basis", "carbon_year",
)  # fmt: skip
"""Columns that name a row, or say where its others were read."""

_NAME: Final = Query(description="Only the row that a name means, as people, drivers and clouds write it.")


def mount_catalog(server: FastAPI, prefix: str) -> None:
    """Add the routes below `prefix`."""

    @server.get(f"{prefix}/catalog/accelerators", summary="Accelerators: ratings, power, prices, each with its source")
    def accelerators(name: Annotated[str | None, _NAME] = None) -> answers.Rows:
        return _rows("accelerators", name)

    @server.get(f"{prefix}/catalog/engines", summary="Inference engines, and how their counters are read")
    def engines(name: Annotated[str | None, _NAME] = None) -> answers.Rows:
        return _rows("engines", name)

    @server.get(f"{prefix}/catalog/regions", summary="Electricity price, carbon and PUE by region")
    def regions(name: Annotated[str | None, _NAME] = None) -> answers.Rows:
        return _rows("regions", name)

    @server.get(f"{prefix}/catalog/pue", summary="PUE of cloud regions, and typical ones by cooling")
    def pue(name: Annotated[str | None, _NAME] = None) -> answers.Rows:
        return _rows("pue", name)


def _rows(table: str, name: str | None) -> answers.Rows:
    known = catalog.current()
    found: Iterable[Row]
    try:
        if table == "accelerators":
            found = known.accelerators if name is None else [known.accelerator(name)]
        elif table == "engines":
            found = known.engines if name is None else [known.engine(name)]
        elif table == "regions":
            found = known.regions if name is None else [known.region(name)]
        else:
            found = [one for one in known.pues if name in {None, one.scope}]
    except LookupError as error:
        raise HTTPException(404, str(error.args[0])) from error
    return answers.Rows(rows=[_row(one, known) for one in found])


def _row(row: Row, known: catalog.Catalog) -> answers.Row:
    shown = [name for name in columns(type(row)) if name not in _PROVENANCE]
    values = {name: _value(row, name) for name in shown if getattr(row, name) not in (None, ())}
    unknown = [name for name in shown if name not in values]
    at_region = known.pue(row.id) if isinstance(row, Region) else None
    if at_region is not None:
        values["pue"] = _value(at_region, "pue")
    return answers.Row(id=row.id, name=getattr(row, "name", row.id), values=values, unknown=unknown)


def _value(row: Row, column: str) -> answers.Value:
    found: Any = getattr(row, column)
    told = row.provenance(column)
    bundled = {one.id: one for one in _bundled(type(row))}.get(row.id)
    return answers.Value(
        value=plain(found) if isinstance(found, Decimal) else list(found) if isinstance(found, tuple) else found,
        source=told.source if told else None,
        as_of=told.date or None if told else None,
        confidence=told.confidence or None if told else None,
        ours=bundled is None or getattr(bundled, column) != found,
    )


def _bundled(kind: type[Row]) -> Iterable[Row]:
    known = catalog.bundled()
    tables: dict[type[Row], Iterable[Row]] = {
        Accelerator: known.accelerators, Engine: known.engines, Region: known.regions, Pue: known.pues,
    }  # fmt: skip
    return tables[kind]

"""FOCUS exports as files: CSV and Parquet are written a part at a time, a spreadsheet in one piece.

Decimals are Decimal(38,12) in Parquet and plain digits in CSV: no exponents, no thousands. The notes say what the file
holds, what its sums are beside those of pages, and what rounding made of them.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from millicent.dashboard import export_files, focus, focus_gate
from millicent.dashboard.export_files import Sheet, digits, plain
from millicent.dashboard.focus_columns import columns, schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal
    from pathlib import Path

    from millicent.dashboard.focus import Control, Export

FocusForm = Literal["csv", "parquet", "xlsx"]
PROFILES: Final = {
    "token-service": "Token service: own hardware stands as tokens of a service of our own. It stands for the cloud's "
    "own rows of those accelerators and is not to be added to them, nor to the other profile.",
    "split-allocation": "Split allocation: the accelerator-hours of each deployment and day are split among callers by "
    "weighted tokens; what no call used is unallocated. Not to be added to the other profile.",
}
_COST: Final = (
    "EffectiveCost is spend as pages show it, fully loaded; BilledCost is the same, because the workspace issues the "
    "statement. Token kinds of a call take of its bill in proportion to their list prices"
)
_UNPRICED: Final = (
    "usage that has no price is in the file with amounts of 0 and x_PriceStatus Unpriced; its cost is unknown, not 0"
)


class RefusedError(ValueError):
    """A file breaks our own rules, or its sums are not those of pages: it is not handed out."""


def write(export: Export, path: Path, form: FocusForm) -> Sheet:
    """Write a file.

    Returns:
        Its totals and notes, without rows.

    Raises:
        RefusedError: it breaks a rule, or its sums are not those of pages; the message says which.
        BadQuery: a day has too many groups.
        ValueError: it has more rows than a spreadsheet holds.
    """
    for _ in focus.readings(export):
        frame = _written(export, path, form)
    _vouch(export)
    told = about(export)
    if form == "xlsx":
        path.write_bytes(export_files.written(Sheet(frame, told.totals, told.notes, told.name), "xlsx"))
    return told


def _written(export: Export, path: Path, form: FocusForm) -> pl.DataFrame:
    """Write the rows; those of a spreadsheet are returned instead."""
    parts = export.rows()
    if form == "xlsx":
        return pl.concat(list(parts))
    with ExitStack() as stack:
        if form == "csv":
            _csv(stack, path, export, parts)
        else:
            _parquet(stack, path, export, parts)
    return pl.DataFrame()


def _csv(stack: ExitStack, path: Path, export: Export, parts: Iterator[pl.DataFrame]) -> None:
    file = stack.enter_context(path.open("wb"))
    pl.DataFrame(schema=schema(export.edition.version)).write_csv(file)
    for part in parts:
        export_files.safe(part).write_csv(file, include_header=False)


def _parquet(stack: ExitStack, path: Path, export: Export, parts: Iterator[pl.DataFrame]) -> None:
    oldest = pl.CompatLevel.oldest()
    shape: pa.Schema = pl.DataFrame(schema=schema(export.edition.version)).to_arrow(compat_level=oldest).schema
    writer = stack.enter_context(pq.ParquetWriter(path, shape, compression="zstd"))
    for part in parts:
        writer.write_table(part.to_arrow(compat_level=oldest).cast(shape))
    writer.add_key_value_metadata(export_files.metadata(about(export)))


def _vouch(export: Export) -> None:
    if export.passed:
        return
    broken = [f"{found.rule} ({found.words}): {found.rows:,} rows" for found in export.findings.values()]
    broken += [
        f"{control.name}: {digits(control.file)} in the file, {digits(control.page)} on pages"
        for control in export.controls
        if not control.holds
    ]
    raise RefusedError(f"{export.month.written} breaks rules and is not exported: {'; '.join(broken)}")


def about(export: Export) -> Sheet:
    """Totals and notes of a file whose rows have been read, with its name and without its rows."""
    edition, month = export.edition, export.month
    own = [column.name for column in columns(edition.version) if column.name.startswith("x_")]
    until = "" if focus.is_over(month, datetime.now(UTC)) else "; not over: amounts of its last days will change"
    if export.until is not None:
        until = f"; days before {export.until:%Y-%m-%d}, because calls kept coming while it was read"
    rules, broken = len(focus_gate.rules(edition.version)), len(export.findings)
    notes = [
        ("Specification", f"FOCUS {edition.version}, Cost and Usage"),
        ("profile", edition.profile),
        ("Profile", PROFILES[edition.profile]),
        ("Billing period", f"{month.words}, UTC{until}"),
        ("Currency", "USD, in which everything is priced and stored"),
        ("Cost", _COST),
        ("Price unknown", _UNPRICED),
        ("Own columns", ", ".join(own)),
        ("Checks", f"{rules} rules, {broken or 'none'} broken"),
        *((f"Sum: {control.name}", _compared(control)) for control in export.controls),
        ("Prices", export.warehouse.prices.version(export.tenant)),
        ("Written", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"),
    ]
    totals: dict[str, Decimal | int | None] = {**export.totals}
    name = f"focus-{edition.version}-{edition.profile}-{month.written}"
    return Sheet(pl.DataFrame(), totals, notes, name)


def _compared(control: Control) -> str:
    told = digits(control.file), digits(control.page), digits(control.residue)
    return "{} in the file, {} on pages, {} by rounding".format(*told)


def summary(export: Export, rows: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What a file holds, as JSON; `rows` are the first of it."""
    return {
        "month": export.month.written,
        "version": export.edition.version,
        "profile": export.edition.profile,
        "row_count": export.height,
        "passed": export.passed,
        "rule_count": len(focus_gate.rules(export.edition.version)),
        "findings": [asdict(found) for found in export.findings.values()],
        "totals": plain(export.totals),
        "controls": [
            {"name": one.name, "file": digits(one.file), "page": digits(one.page), "residue": digits(one.residue),
             "holds": one.holds}
            for one in export.controls
        ],
        "notes": dict(about(export).notes),
        "rows": list(rows),
    }  # fmt: skip


def preview(part: pl.DataFrame, limit: int) -> list[dict[str, Any]]:
    """The first rows as JSON: decimals as text, instants as FOCUS writes them."""
    found: list[dict[str, Any]] = json.loads(export_files.texts(part.head(limit)).write_json())
    return found

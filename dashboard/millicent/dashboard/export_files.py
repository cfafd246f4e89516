"""Tables as files: CSV, spreadsheet, Parquet or Arrow, each with its totals and notes in it.

Amounts keep all their digits where the form can: text in CSV, Decimal in Parquet and Arrow. A spreadsheet holds 15, so
its notes repeat the totals in full. Text from outside never becomes a formula.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter
from starlette.responses import Response

if TYPE_CHECKING:
    from datetime import datetime

    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

FileForm = Literal["csv", "xlsx", "parquet", "arrow"]
FORMS: Final[tuple[FileForm, ...]] = get_args(FileForm)
MEDIA: Final[dict[FileForm, str]] = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
MOST_ROWS: Final = 1_048_575
"""Rows that a sheet holds below its heading."""
TOTALS_HEADER: Final = "x-millicent-totals"
NOTES_HEADER: Final = "x-millicent-notes"
_RISKY: Final = "=+-@\t\r\n＝＋－＠"
_FORMULA: Final = rf"^([{re.escape(_RISKY)}])"
_MOST_HEADER: Final = 4000

Notes = Sequence[tuple[str, str]]
"""What stands beside the numbers: what it is about, and the words."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table to be written.

    Attributes:
        frame: its rows; amounts Decimal, counts integers, instants UTC.
        totals: by column, what its rows add up to; ratios are sum ÷ sum. What is left out has no total.
        notes: filters, definitions and whatever else is needed to read it later.
        name: of the file, without its ending.
        formats: by column, how a spreadsheet shows its numbers, where that is not the usual.
    """

    frame: pl.DataFrame
    totals: Mapping[str, Decimal | int | None] = field(default_factory=dict)
    notes: Notes = ()
    name: str = "millicent"
    formats: Mapping[str, str] = field(default_factory=dict)


def written(sheet: Sheet, form: FileForm) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: it has more rows than a spreadsheet holds.
    """
    buffer = io.BytesIO()
    if form == "xlsx":
        _workbook(sheet, buffer)
    elif form == "csv":
        safe(sheet.frame).write_csv(buffer)
    else:
        table = sheet.frame.to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata(metadata(sheet))
        if form == "parquet":
            pq.write_table(table, buffer, compression="zstd")
        else:
            with pa.ipc.new_stream(buffer, table.schema) as stream:
                stream.write_table(table)
    return buffer.getvalue()


def answered(sheet: Sheet, form: FileForm) -> Response:
    """The file as an answer of the API; totals stand in a header, too, because CSV has no other place for them."""
    return Response(written(sheet, form), media_type=MEDIA[form], headers=headers(sheet, form))


def headers(sheet: Sheet, form: FileForm) -> dict[str, str]:
    """What an answer says of the file that it is."""
    told = {"content-disposition": f'attachment; filename="{sheet.name}.{form}"'}
    for name, value in ((TOTALS_HEADER, plain(sheet.totals)), (NOTES_HEADER, dict(sheet.notes))):
        text = json.dumps(value, separators=(",", ":"))
        if value and len(text) <= _MOST_HEADER:
            told[name] = text
    return told


def metadata(sheet: Sheet) -> dict[str, str]:
    """Totals and notes as the schema of Parquet and Arrow keeps them: JSON under two keys."""
    return {"millicent.totals": json.dumps(plain(sheet.totals)), "millicent.notes": json.dumps(dict(sheet.notes))}


def plain(totals: Mapping[str, Decimal | int | None]) -> dict[str, str | int | None]:
    """Totals as JSON: amounts as text with all their digits."""
    return {name: digits(value) if isinstance(value, Decimal) else value for name, value in totals.items()}


def digits(amount: Decimal) -> str:
    """Plain digits: no exponent, no zeros at the end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Decimals as plain digits, instants as ISO 8601."""
    return frame.with_columns(
        pl.col(pl.Decimal).cast(pl.String).str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix("."),
        pl.col(pl.Datetime).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def safe(frame: pl.DataFrame) -> pl.DataFrame:
    """As a CSV has it: text that a spreadsheet would take for a formula begins with an apostrophe."""
    outside = frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$1"))
    return texts(outside)


# ---- spreadsheets


def _workbook(sheet: Sheet, buffer: io.BytesIO) -> None:
    frame = sheet.frame
    if frame.height >= MOST_ROWS:
        raise ValueError(
            f"{frame.height:,} rows are more than a spreadsheet holds ({MOST_ROWS:,}): ask for CSV or Parquet"
        )
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False,
               "remove_timezone": True, "default_date_format": "yyyy-mm-dd hh:mm"}  # fmt: skip
    with xlsxwriter.Workbook(buffer, options) as book:
        head = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        bold = {"bold": True, "top": 1}
        quoted = book.add_format({"quote_prefix": True})
        page = book.add_worksheet("Data")
        page.freeze_panes(1, 0)
        page.write_row(0, 0, frame.columns, head)
        for at, (name, series) in enumerate(zip(frame.columns, frame, strict=True)):
            shown = sheet.formats.get(name) or _shown(series.dtype)
            face = book.add_format({"num_format": shown}) if shown else None
            page.set_column(at, at, _width(name, series))
            _column(page, at, series, face, quoted)
            total = sheet.totals.get(name)
            if total is not None:
                page.write_number(frame.height + 1, at, total, book.add_format({**bold, "num_format": shown or "0"}))
        if sheet.totals and frame.width and frame.columns[0] not in sheet.totals:
            page.write_string(frame.height + 1, 0, "Total", book.add_format(bold))
        if frame.height:
            page.autofilter(0, 0, frame.height, frame.width - 1)
        _notes(book.add_worksheet("Notes"), sheet, head, book.add_format({"text_wrap": True, "valign": "top"}))


def _column(page: Worksheet, at: int, series: pl.Series, face: Format | None, quoted: Format) -> None:
    """The cells of one column, below its heading; what is unknown stays empty."""
    if isinstance(series.dtype, pl.String):
        for row, text in enumerate(series, 1):
            if text is not None:
                page.write_string(row, at, text, quoted if text[:1] in _RISKY else face)
    elif isinstance(series.dtype, pl.Datetime):
        _instants(page, at, series.to_list(), face)
    else:
        for row, value in enumerate(series, 1):
            if isinstance(value, bool):
                page.write_boolean(row, at, value, face)
            elif value is not None:
                page.write_number(row, at, value, face)


def _instants(page: Worksheet, at: int, instants: Sequence[datetime | None], face: Format | None) -> None:
    for row, instant in enumerate(instants, 1):
        if instant is not None:
            page.write_datetime(row, at, instant, face)


def _notes(page: Worksheet, sheet: Sheet, head: Format, wrapped: Format) -> None:
    page.set_column(0, 0, 30)
    page.set_column(1, 1, 110)
    page.write_row(0, 0, ["About this file", ""], head)
    lines = [*sheet.notes, ("Rows", f"{sheet.frame.height:,}")]
    lines += [(f"Total of {name}, in full", str(value)) for name, value in plain(sheet.totals).items()]
    for row, line in enumerate(lines, 1):
        for at, text in enumerate(line):
            page.write_string(row, at, text, wrapped)


def _shown(of: Any) -> str | None:
    if isinstance(of, pl.Decimal):
        return "#,##0.00####"
    if isinstance(of, pl.Datetime):
        return "yyyy-mm-dd hh:mm"
    return "#,##0" if of.is_integer() else None


def _width(name: str, series: pl.Series) -> float:
    widest = series.str.len_chars().max() if isinstance(series.dtype, pl.String) else None
    inside = widest if isinstance(widest, int) else 14
    return float(min(max(len(name) + 2, inside + 1, 9), 48))

"""A statement as a file: the parts that PDF, spreadsheet and text have in common, and the two latter."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from millicent.dashboard import format as fmt
from millicent.dashboard.asking import plain
from millicent.dashboard.statements import EVERYBODY, cents

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from millicent.dashboard.statements import Line, Statement

Form = Literal["json", "csv", "xlsx", "pdf"]
MEDIA: Final[dict[Form, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pdf": "application/pdf",
}
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_MONEY: Final = "#,##0.00;[Red]-#,##0.00;0.00"
_LONGEST_NAME: Final = 40


@dataclass(frozen=True, slots=True)
class Part:
    """A table of a statement: `rows` of texts and amounts; the last one is a total where `totalled`."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str | Decimal | None, ...], ...]
    totalled: bool = True


def parts(statement: Statement) -> tuple[Part, ...]:
    """Its tables, in order."""
    money = f"Amount, {statement.currency}"
    control = statement.monthly.control(statement.who)
    past = tuple((one.month.words, "closed" if one.closed else "open", cents(one.total)) for one in statement.history)
    return (
        Part("Statement", ("Item", money), _amounts(statement.lines)),
        Part("By feature", ("Feature", money), _amounts(statement.features)),
        Part("By model", ("Model", money), _amounts(statement.models)),
        Part("Month by month", ("Month", "State", money), past, totalled=False),
        Part("Control totals", ("Whose", money), _amounts(control)),
    )


def facts(statement: Statement, zone: tzinfo) -> tuple[tuple[str, str], ...]:
    """What it is of, and when and from what it was made, in words; a closed month says the same for ever."""
    whole = statement.monthly
    found = [
        ("For", statement.name),
        ("Month", whole.month.words),
        ("From", f"{_moment(whole.period.start, zone)} to {_moment(whole.period.end, zone)}, the end not included"),
        ("Time zone", statement.zone),
        ("Currency", statement.currency),
        ("Cost basis", "Fully loaded: API as billed, own hardware with what the allocation policy says of idle"),
        ("Workspace", statement.tenant),
    ]
    found += [("Exchange rate", f"{rate.words}, {rate.source}") for rate in whole.rates]
    if whole.closing:
        closed = f"{_moment(whole.closing.at, zone)} by {whole.closing.by}"
        found += [("State", "Final: the month is closed"), ("Closed", closed),
                  ("Data", "The ledger of the closed month, which does not change")]  # fmt: skip
    elif statement.made:
        at, fresh = statement.made
        found += [("State", "Provisional: the month is open"), ("Made", _moment(at, zone)),
                  ("Data", f"The ledger, complete through {_moment(fresh, zone)}")]  # fmt: skip
    return tuple(found)


def file_name(statement: Statement, form: Form) -> str:
    """`millicent-2026-11-Search.pdf`, in letters that every system takes."""
    team = "everybody" if statement.who == EVERYBODY else statement.name
    safe = _UNSAFE.sub("-", team).strip("-.")[:_LONGEST_NAME] or "team"
    return f"millicent-{statement.monthly.month.written}-{safe}.{form}"


def written(statement: Statement, form: Form, zone: tzinfo) -> bytes:
    """The file. Of a closed month it is the same, byte by byte, whenever it is made.

    Args:
        statement: what is written.
        form: which kind of file.
        zone: that of the statement, in which instants are told.
    """
    if form == "csv":
        return _csv(statement, zone)
    if form == "xlsx":
        return _xlsx(statement, zone)
    if form == "pdf":
        from millicent.dashboard.statement_pdf import pdf  # noqa: PLC0415 - what draws pages takes long to load

        return pdf(statement, zone)
    raise ValueError(f"format {form!r} is no file: write csv, xlsx or pdf")


def told(statement: Statement, zone: tzinfo) -> dict[str, Any]:
    """The statement as JSON; amounts are text."""

    def rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
        return [{"key": one.key, "name": one.name, "amount": _text(one.amount)} for one in lines]

    closing = statement.monthly.closing
    return {
        "teams": list(statement.who), "for": statement.name, "kind": statement.kind,
        "month": statement.monthly.month.written, "currency": statement.currency, "time_zone": statement.zone,
        **plain({"start": statement.monthly.period.start, "end": statement.monthly.period.end,
                 "closed_at": closing.at if closing else None}),
        "closed_by": closing.by if closing else None, "total": _text(statement.total),
        "lines": rows(statement.lines), "features": rows(statement.features), "models": rows(statement.models),
        "control_totals": rows(statement.monthly.control(statement.who)),
        "months": [{"month": one.month.written, "closed": one.closed is not None, "amount": _text(cents(one.total))}
                   for one in statement.history],
        "rules": statement.rules, "facts": dict(facts(statement, zone)),
    }  # fmt: skip


def _csv(statement: Statement, zone: tzinfo) -> bytes:
    """One row per line: section, item, amount, currency; then what it is of and its rule as text."""
    buffer = io.StringIO()
    out = csv.writer(buffer, lineterminator="\r\n")
    out.writerow(("section", "item", "amount", "currency", "text"))
    for part in parts(statement):
        for first, *middle, amount in part.rows:
            out.writerow((part.title, _safe(first), _text(amount), statement.currency, *map(_safe, middle)))
    for name, value in facts(statement, zone):
        out.writerow(("About", name, "", "", _safe(value)))
    for rule in statement.rules:
        out.writerow(("Rule", "", "", "", _safe(rule)))
    return buffer.getvalue().encode("utf-8-sig")


def _xlsx(statement: Statement, zone: tzinfo) -> bytes:
    import xlsxwriter  # noqa: PLC0415 - only who wants a spreadsheet waits for it

    buffer = io.BytesIO()
    made = statement.monthly.closing.at if statement.monthly.closing else (statement.made or (None,))[0]
    book = xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    book.set_properties({
        "title": f"{statement.kind}, {statement.monthly.month.words}", "author": "Millicent",
        "created": made.replace(tzinfo=None) if made else None,
    })  # fmt: skip
    looks = {name: book.add_format(look) for name, look in _LOOKS.items()}
    for part in parts(statement):
        sheet = book.add_worksheet(part.title)
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, 0, 48)
        sheet.set_column(1, len(part.heads) - 1, 20)
        for at, head in enumerate(part.heads):
            sheet.write_string(0, at, head, looks["heads"] if at < len(part.heads) - 1 else looks["head"])
        for number, row in enumerate(part.rows, start=1):
            last = part.totalled and number == len(part.rows)
            for at, value in enumerate(row):
                if isinstance(value, Decimal):
                    sheet.write_number(number, at, value, looks["total" if last else "money"])
                else:
                    text = fmt.UNKNOWN if value is None else value
                    sheet.write_string(number, at, text[:_LONGEST_CELL], looks["label" if last else "text"])
    notes = book.add_worksheet("Notes")
    notes.set_column(0, 0, 18)
    notes.set_column(1, 1, 110)
    rows = [*facts(statement, zone), *(("Rule", rule) for rule in statement.rules)]
    for number, (name, value) in enumerate(rows):
        notes.write_string(number, 0, name, looks["heads"])
        notes.write_string(number, 1, value[:_LONGEST_CELL], looks["wrapped"])
    book.close()
    return buffer.getvalue()


_LONGEST_CELL: Final = 32_000
_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "head": {"bold": True, "bottom": 1, "align": "right"}, "heads": {"bold": True, "valign": "top"},
    "money": {"num_format": _MONEY}, "total": {"num_format": _MONEY, "bold": True, "top": 1},
    "text": {}, "label": {"bold": True, "top": 1}, "wrapped": {"text_wrap": True, "valign": "top"},
}  # fmt: skip


def _amounts(lines: Sequence[Line]) -> tuple[tuple[str, Decimal | None], ...]:
    return tuple((one.name, one.amount) for one in lines)


def _text(amount: Any) -> str | None:
    return None if amount is None else f"{amount:f}"


def _safe(text: str | Decimal | None) -> str:
    """Text that no spreadsheet takes for a formula."""
    plain_text = "" if text is None else str(text)
    return f"'{plain_text}" if _FORMULA.match(plain_text) else plain_text


def _moment(instant: datetime, zone: tzinfo) -> str:
    local = instant.astimezone(zone)
    return f"{local.day} {local:%b %Y %H:%M}"

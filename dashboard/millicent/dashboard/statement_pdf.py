"""A statement as a PDF: pages of A4 with text that can be selected, in the Vera font that comes with its library.

Vera has the letters of Western Europe. Any other character (Greek, Cyrillic, Chinese, Arabic, emoji, what turns the
direction of writing) is written as its Unicode number, `[U+6771]`, so that no name is lost or can pass for another; a
line at the end says so where it happens.
"""

from __future__ import annotations

import io
import unicodedata
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from millicent.dashboard import format as fmt
from millicent.dashboard.statement_files import facts, parts

if TYPE_CHECKING:
    from datetime import tzinfo

    from millicent.dashboard.statement_files import Part
    from millicent.dashboard.statements import Statement

MOST_ROWS: Final = 100
LONGEST: Final = 120
INK, QUIET, RULE, ACCENT = (HexColor(one) for one in ("#1b2330", "#5b6678", "#d9dee7", "#3b6fe0"))
_MARGIN: Final = 18 * mm
_PADDING: Final = 6
"""Points that a page leaves around what flows."""
_WIDTH: Final = A4[0] - 2 * _MARGIN
_AMOUNT: Final = 42 * mm
_REPLACED: Final = "Characters that the font of this file lacks are written as their Unicode numbers, such as [U+6771]."


def pdf(statement: Statement, zone: tzinfo) -> bytes:
    """The file; the same, byte by byte, for the same statement."""
    plain, bold = _fonts()
    text = ParagraphStyle("text", fontName=plain, fontSize=8.5, leading=12, textColor=INK)
    looks = {
        "text": text,
        "quiet": ParagraphStyle("quiet", text, textColor=QUIET, fontSize=8),
        "bold": ParagraphStyle("bold", text, fontName=bold),
        "right": ParagraphStyle("right", text, alignment=TA_RIGHT),
        "sum": ParagraphStyle("sum", text, alignment=TA_RIGHT, fontName=bold),
        "head": ParagraphStyle("head", text, fontName=bold, fontSize=10.5, leading=14, spaceBefore=12, spaceAfter=4),
        "title": ParagraphStyle("title", text, fontName=bold, fontSize=17, leading=22),
    }
    month = statement.monthly.month.words
    story: list[Any] = [
        Paragraph(shown(statement.name), looks["title"]),
        Paragraph(f"{statement.kind}, {month}", ParagraphStyle("kind", text, fontSize=11, leading=16, textColor=QUIET)),
        Spacer(1, 4 * mm),
        _about(statement, zone, looks),
    ]
    first, *others = parts(statement)
    story += _part(first, looks)
    story.append(_heading("How the amounts came about", looks))
    listed = ParagraphStyle("listed", text, leftIndent=9, bulletIndent=0, bulletFontName=plain, spaceAfter=2)
    story += [Paragraph(shown(rule, len(rule)), listed, bulletText="·") for rule in statement.rules]
    for part in others:
        story += _part(part, looks)
    if any(_replaces(value) for value in _texts(statement)):
        story += [Spacer(1, 4 * mm), Paragraph(_REPLACED, looks["quiet"])]
    buffer = io.BytesIO()
    foot = f"{statement.kind} · {month} · {statement.currency}"
    pages = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=_MARGIN - _PADDING, rightMargin=_MARGIN - _PADDING, topMargin=_MARGIN,
        bottomMargin=_MARGIN + 6 * mm,
        title=f"{statement.kind}, {month}", author="Millicent", subject=statement.name, invariant=1, lang="en",
    )  # fmt: skip
    pages.build(story, canvasmaker=lambda *given, **named: _Numbered(*given, foot=foot, **named))
    return buffer.getvalue()


def shown(text: str, longest: int = LONGEST) -> str:
    """Text as markup of a paragraph: nothing in it is markup, and what the font lacks is its Unicode number."""
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return escape("".join(_letter(one) for one in cut))


def _letter(one: str) -> str:
    return one if _has(one) else f"[U+{ord(one):04X}]"


def _has(one: str) -> bool:
    """Whether the font draws a character; what is unseen or turns the direction of writing counts as not."""
    return one == " " or (unicodedata.category(one)[0] not in "CZ" and ord(one) in _glyphs())


def _replaces(text: str) -> bool:
    return not all(map(_has, text[:LONGEST]))


def _texts(statement: Statement) -> list[str]:
    rows = [value for part in parts(statement) for row in part.rows[:MOST_ROWS] for value in row]
    return [statement.name, statement.tenant, *(value for value in rows if isinstance(value, str))]


@cache
def _fonts() -> tuple[str, str]:
    """Names of the plain and the bold font, once they are known to what draws."""
    for name, file in (("Vera", "Vera.ttf"), ("VeraBd", "VeraBd.ttf")):
        pdfmetrics.registerFont(TTFont(name, file))
    return "Vera", "VeraBd"


@cache
def _glyphs() -> frozenset[int]:
    """Characters that both fonts draw."""
    plain, bold = (pdfmetrics.getFont(name).face.charToGlyph for name in _fonts())
    return frozenset(plain) & frozenset(bold)


def _about(statement: Statement, zone: tzinfo, looks: dict[str, ParagraphStyle]) -> Table:
    rows = [
        [Paragraph(name, looks["quiet"]), Paragraph(shown(value, 400), looks["text"])]
        for name, value in facts(statement, zone)
    ]
    table = Table(rows, colWidths=[28 * mm, _WIDTH - 28 * mm])
    table.setStyle(TableStyle([*_TIGHT, ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _part(part: Part, looks: dict[str, ParagraphStyle]) -> list[Any]:
    rows, last = part.rows, part.rows[-1:]
    if len(rows) > MOST_ROWS:
        left = rows[MOST_ROWS - 1 : -1]
        known = [row[-1] for row in left if isinstance(row[-1], Decimal)]
        rest: tuple[str | Decimal | None, ...] = (
            f"and {len(left):,} more", *("" for _ in part.heads[2:]), sum(known, Decimal(0)),
        )  # fmt: skip
        rows = (*rows[: MOST_ROWS - 1], rest, *last)
    lines = [[Paragraph(head, looks["bold" if at < len(part.heads) - 1 else "sum"])
              for at, head in enumerate(part.heads)]]  # fmt: skip
    for number, row in enumerate(rows, start=1):
        total = part.totalled and number == len(rows)
        lines.append([_cell(value, looks, total=total) for value in row])
    middle = [26 * mm] * (len(part.heads) - 2)
    table = Table(lines, colWidths=[_WIDTH - _AMOUNT - sum(middle), *middle, _AMOUNT], repeatRows=1)
    ends = [("LINEABOVE", (0, -1), (-1, -1), 0.8, INK)] if part.totalled else []
    lined = [("LINEBELOW", (0, 0), (-1, 0), 0.8, INK), ("LINEBELOW", (0, 1), (-1, -2), 0.3, RULE)]
    table.setStyle(TableStyle([*_TIGHT, *lined, *ends]))
    head = _heading(part.title, looks)
    return [KeepTogether([head, table])] if len(lines) <= _SHORT else [head, table]


def _heading(words: str, looks: dict[str, ParagraphStyle]) -> Paragraph:
    return Paragraph(words, looks["head"])


def _cell(value: str | Decimal | None, looks: dict[str, ParagraphStyle], *, total: bool) -> Paragraph:
    if isinstance(value, str):
        return Paragraph(shown(value), looks["bold" if total else "text"])
    amount = fmt.UNKNOWN if value is None else f"{value:,.2f}".replace("-", fmt.MINUS)
    return Paragraph(amount, looks["sum" if total else "right"])


class _Numbered(Canvas):  # type: ignore[misc]
    """Draws what stands at the foot of each page, once it is known how many there are."""

    def __init__(self, *given: Any, foot: str, **named: Any) -> None:
        super().__init__(*given, **named)
        self._foot = foot
        self._kept: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 - as the library calls it
        self._kept.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self._kept, start=1):
            self.__dict__.update(page)
            self.setFont(_fonts()[0], 7.5)
            self.setFillColor(QUIET)
            self.drawString(_MARGIN, 12 * mm, self._foot)
            self.drawRightString(A4[0] - _MARGIN, 12 * mm, f"Page {number} of {len(self._kept)}")
            super().showPage()
        super().save()


_SHORT: Final = 24
_TIGHT: Final = [
    ("LEFTPADDING", (0, 0), (0, -1), 0), ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 2), ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ("ALIGN", (-1, 0), (-1, -1), "RIGHT"),
]  # fmt: skip

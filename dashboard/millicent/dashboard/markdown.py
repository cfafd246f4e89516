"""Markdown of the reference pages: headings, tables, names as code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def page(title: str, about: str, *sections: str) -> str:
    """A page that `make docs` writes."""
    note = "<!-- Written by `make docs`. Change the code it is read from instead. -->"
    return "\n\n".join((f"# {title}", note, about, *sections)) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; None is an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def code(value: object) -> str:
    """A name as it is typed."""
    return f"`{value}`"


def listed(names: Iterable[object]) -> str:
    """Names with commas between."""
    return ", ".join(map(code, names))

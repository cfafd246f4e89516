"""The setting `catalog`: an extension of the catalog in TOML, read at the start and checked by `millicent doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from millicent.pricing import catalog
from millicent.pricing.catalog import BadCatalogError, Catalog
from millicent.warehouse.declaring import uncosted

if TYPE_CHECKING:
    from millicent.warehouse.control import Control


def read(path: Path | None) -> Catalog:
    """The bundled catalog with the extension in a file; None is none.

    Raises:
        BadCatalogError: naming every problem of the file, or why it cannot be read.
    """
    if path is None:
        return catalog.bundled()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCatalogError([f"the catalog {path} cannot be read: {error}"]) from error
    try:
        return catalog.bundled().extended(text)
    except BadCatalogError as error:
        raise BadCatalogError(f"{path}: {problem}" for problem in error.problems) from error


def use(path: Path | None) -> None:
    """Have every lookup of this process know the extension.

    Raises:
        BadCatalogError: as `read`.
    """
    catalog.use(None if path is None else read(path))


def unknown_costs(control: Control) -> Iterator[str]:
    """Declared deployments whose hours have no cost by the catalog in use, each with the reason."""
    for _, one in control.deployments():
        for problem in uncosted(one):
            yield f"deployment {one.name!r} from {one.effective_from:%Y-%m-%d %H:%M} UTC: {problem}"


def checks(path: Path | None) -> tuple[dict[str, str], bool]:
    """What is known, or every problem on a line of its own, for `millicent doctor`; and whether all is well."""
    try:
        known = read(path)
    except BadCatalogError as error:
        return {f"catalog, problem {at}": problem for at, problem in enumerate(error.problems, start=1)}, False
    lines = {"catalog": _counted(known, path)}
    wrong = known.problems() if path is not None else []
    lines |= {f"catalog, problem {at}": problem for at, problem in enumerate(wrong, start=1)}
    return lines, not wrong


def _counted(known: Catalog, path: Path | None) -> str:
    bundled = catalog.bundled()
    tables = {
        "accelerators": (known.accelerators, bundled.accelerators),
        "regions": (known.regions, bundled.regions),
        "PUE": (known.pues, bundled.pues),
        "engines": (known.engines, bundled.engines),
    }
    told = ", ".join(f"{len(rows)} {name}" for name, (rows, _) in tables.items())
    if path is None:
        return told
    before = {id(row) for _, rows in tables.values() for row in rows}
    ours = sum(id(row) not in before for rows, _ in tables.values() for row in rows)
    return f"{told}, of which {path} adds or changes {ours}"

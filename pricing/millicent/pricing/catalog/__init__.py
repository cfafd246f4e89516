"""What is publicly known about accelerators, electricity, cooling overhead and engines, each row sourced.

The tables are the CSV files beside this module: fix a number by editing one row and its source. They are
read on first use. A blank cell is a fact nobody has published; it stays None and is never filled in here.

Users add rows and change fields in TOML, each with its source (`millicent.pricing.catalog.extension`):

    catalog.use(catalog.bundled().extended(text))    # what every lookup of this process then knows
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from typing import cast

from millicent.pricing.catalog.extension import BadCatalogError, problems_of, read_toml
from millicent.pricing.catalog.rows import Accelerator, Engine, Provenance, Pue, Region, Row, from_texts

__all__ = [
    "Accelerator",
    "BadCatalogError",
    "Catalog",
    "Engine",
    "Provenance",
    "Pue",
    "Region",
    "accelerator",
    "accelerators",
    "bundled",
    "current",
    "engine",
    "engines",
    "pue",
    "pues",
    "region",
    "regions",
    "use",
]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Tables that belong together, and how their rows are found by name."""

    accelerators: tuple[Accelerator, ...]
    regions: tuple[Region, ...]
    pues: tuple[Pue, ...]
    engines: tuple[Engine, ...]

    def extended(self, text: str) -> "Catalog":
        """This catalog with the rows of an extension in TOML: same ids changed in place, new ones at the end.

        Raises:
            BadCatalogError: naming every problem of the text.
        """
        return _catalog(read_toml(text, self._tables()))

    def problems(self) -> list[str]:
        """Every value that nobody could check, because its row tells no source, date or confidence for it."""
        return [problem for rows in self._tables().values() for row in rows for problem in problems_of(row)]

    def accelerator(self, name: str) -> Accelerator:
        """The accelerator that a name means, as people, drivers and clouds write it; case does not matter.

        An id or name of the catalog matches itself. Else the longest pattern of the `match` column that occurs
        in the name decides ("NVIDIA H100 80GB HBM3", "p5.48xlarge"); else the words of the name, if they occur
        in one row only ("TPU v7").

        Raises:
            LookupError: No row matches, or several do; the message lists the nearest.
        """
        rows = self.accelerators
        wanted = _words(name)
        for row in rows:
            if wanted in (_words(row.id), _words(row.name)):
                return row
        patterns = [(row, words) for row in rows for pattern in row.match if (words := _words(pattern))]
        contained = [(row, words) for row, words in patterns if f" {words} " in f" {wanted} "]
        if contained:
            return max(contained, key=lambda hit: len(hit[1]))[0]
        described = [row for row in rows if set(wanted.split()) <= set(_words(f"{row.vendor} {row.name}").split())]
        if wanted and len(described) == 1:
            return described[0]
        if wanted and described:
            choices = ", ".join(repr(row.name) for row in described)
            raise LookupError(f"{name!r} can be any of {choices}: write which accelerator it is")
        raise _unknown("accelerator", name, [row.name for row in rows])

    def region(self, name: str) -> Region:
        """The region that an id ("de", "us-va", "aws/us-east-1"), a name or a cloud's own code means.

        Raises:
            LookupError: No row matches, or several clouds have a region of that code.
        """
        wanted = name.strip().lower()
        for row in self.regions:
            if wanted in (row.id.lower(), row.name.lower()):
                return row
        coded = [row for row in self.regions if wanted == row.id.lower().rpartition("/")[2]]
        if len(coded) == 1:
            return coded[0]
        if coded:
            raise LookupError(f"{name!r} is a region of several clouds: write {' or '.join(r.id for r in coded)}")
        for row in self.regions:
            if row.kind == "country" and wanted in {alias.lower() for alias in row.aliases}:
                return row
        raise _unknown("region", name, [text for row in self.regions for text in (row.id, row.name)])

    def pue(self, scope: str) -> Pue | None:
        """The PUE of a cloud region ("aws/us-east-1") or a typical one ("default/ai-air"); None if unknown."""
        return next((row for row in self.pues if row.scope == scope), None)

    def engine(self, name: str) -> Engine:
        """The engine of an id or name ("vllm", "vLLM"); case does not matter.

        Raises:
            LookupError: No such engine.
        """
        wanted = _words(name)
        for row in self.engines:
            if wanted in (_words(row.id), _words(row.name), _words(row.name.partition("(")[0])):
                return row
        raise _unknown("engine", name, [row.name for row in self.engines])

    def _tables(self) -> Mapping[type[Row], tuple[Row, ...]]:
        return {Accelerator: self.accelerators, Region: self.regions, Pue: self.pues, Engine: self.engines}


@cache
def bundled() -> Catalog:
    """The catalog as it ships."""
    return _catalog({kind: tuple(_read(kind)) for kind in (Accelerator, Region, Pue, Engine)})


def current() -> Catalog:
    """The catalog that lookups of this process use: the bundled one, until `use` says otherwise."""
    return _in_use[-1] if _in_use else bundled()


def use(catalog: Catalog | None) -> None:
    """Have every lookup of this process use a catalog; None is the bundled one again. For start-up, not per call."""
    _in_use[:] = [] if catalog is None else [catalog]


_in_use: list[Catalog] = []


def accelerators() -> tuple[Accelerator, ...]:
    """All accelerators, in the order of the table."""
    return current().accelerators


def regions() -> tuple[Region, ...]:
    """All regions with electricity data, in the order of the table."""
    return current().regions


def pues() -> tuple[Pue, ...]:
    """All PUE rows, in the order of the table."""
    return current().pues


def engines() -> tuple[Engine, ...]:
    """All engines, in the order of the table."""
    return current().engines


def accelerator(name: str) -> Accelerator:
    """`Catalog.accelerator` of the current catalog."""
    return current().accelerator(name)


def region(name: str) -> Region:
    """`Catalog.region` of the current catalog."""
    return current().region(name)


def pue(scope: str) -> Pue | None:
    """`Catalog.pue` of the current catalog."""
    return current().pue(scope)


def engine(name: str) -> Engine:
    """`Catalog.engine` of the current catalog."""
    return current().engine(name)


def _read(kind: type[Row]) -> Iterable[Row]:
    text = (files(__package__) / kind.TABLE).read_text(encoding="utf-8")
    return (cast("Row", from_texts(kind, row)) for row in csv.DictReader(text.splitlines()))


def _catalog(tables: Mapping[type[Row], tuple[Row, ...]]) -> Catalog:
    return Catalog(
        cast("tuple[Accelerator, ...]", tables[Accelerator]),
        cast("tuple[Region, ...]", tables[Region]),
        cast("tuple[Pue, ...]", tables[Pue]),
        cast("tuple[Engine, ...]", tables[Engine]),
    )


@lru_cache(maxsize=4096)
def _words(text: str) -> str:
    """Lower case, with everything but letters and digits as single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _unknown(what: str, name: str, known: Iterable[str]) -> LookupError:
    names = {text.lower(): text for text in known}
    close = [names[match] for match in get_close_matches(name.lower(), names, n=3, cutoff=0.4)]
    nearest = f"nearest: {', '.join(map(repr, close))}" if close else "nothing comes near"
    return LookupError(f"{what} {name!r} is not in the catalog ({nearest}): correct the name")

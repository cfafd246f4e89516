"""What stands in the drawer of a page, as its address carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Self, TypeVar, cast
from urllib.parse import quote, urlencode

from millicent.dashboard.state import pairs_of

Kind = TypeVar("Kind", bound=str)

_LONGEST: Final = 200
_LONGEST_OPEN: Final = 2000


@dataclass(frozen=True, slots=True)
class Opened(Generic[Kind]):
    """What is open; `told` says which one, and what a form begins with."""

    KINDS: ClassVar[tuple[str, ...]] = ()
    """What a page can open."""

    kind: Kind
    told: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, kind: Kind, /, **told: object) -> Self:
        """What is told by name; None is left out."""
        return cls(kind, tuple((name, str(value)) for name, value in told.items() if value is not None))

    def __getitem__(self, name: str) -> str:
        """What was told by this name; empty for nothing."""
        return dict(self.told).get(name, "")

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Read what `written` wrote; None where it opens nothing."""
        kind, _, told = clean(text).partition("?")
        if kind not in cls.KINDS:
            return None
        return cls(cast("Kind", kind), tuple((name, value[:_LONGEST]) for name, value in pairs_of(told)))

    @property
    def written(self) -> str:
        """As the address carries it, under the key `open`."""
        return f"{self.kind}?{urlencode(self.told, quote_via=quote)}"


def clean(text: object) -> str:
    """What was sent as a text: cut where it is too long, without what is no text."""
    told = text if isinstance(text, str) else ""
    return told[:_LONGEST_OPEN].encode("utf-8", "replace").decode()

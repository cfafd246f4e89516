"""What the Teams page shows, as one value that the URL carries: whose statement, of which month, and what it is worth.

Period, basis and comparison are those of the month; the period in the address goes along to other pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from millicent.dashboard.format import local, presented
from millicent.dashboard.months import Month
from millicent.dashboard.pages import frame
from millicent.dashboard.state import VERSION, View, address, pairs_of

if TYPE_CHECKING:
    from datetime import datetime

    from millicent.dashboard.statements import Who

Manner = Literal["showback", "chargeback"]

MANNERS: Final[dict[Manner, str]] = {"showback": "Showback", "chargeback": "Chargeback"}
PLACE: Final = frame.Place(
    name="chargeback", at="/teams", title="Teams & chargeback", filters={"team": "Team"}, compared=False, based=False,
    ranged=False, more=(("m", None, ""), ("as", "chargeback-as", "showback"), ("open", None, "")),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One state of the page.

    Attributes:
        view: what is kept for the pages that one goes on to; of its filters only teams count here.
        month: None for the present one.
        manner: what it would be, or what is charged once a month is closed.
    """

    view: View = field(default_factory=View)
    month: Month | None = None
    manner: Manner = "showback"

    @staticmethod
    def parse(search: object, manner: object = None) -> Looked:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        text = search if isinstance(search, str) else ""
        told = dict(pairs_of(text))
        if told.get("v", VERSION) != VERSION:
            return Looked()
        view = View.parse(text)
        chosen = manner if isinstance(manner, str) and manner else told.get("as", "")
        return Looked(
            view=View(range=view.range, filters=tuple(one for one in view.filters if one[0] == "team"),
                      currency=view.currency, zone=view.zone),
            month=Month.parse(told.get("m")),
            manner=cast("Manner", chosen) if chosen in get_args(Manner) else "showback",
        )  # fmt: skip

    @property
    def who(self) -> Who:
        """Whose statement it is."""
        return self.view.chosen("team")

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        told: tuple[tuple[str, str | None], ...] = (
            ("p", self.view.range if self.view.range != "4w" else None),
            ("cur", self.view.currency),
            ("tz", self.view.zone),
            *(("team", name or "") for name in self.who),
            ("m", self.month.written if self.month else None),
            ("as", self.manner if self.manner != "showback" else None),
        )
        return address(told)

    def href(self, **changed: Any) -> str:
        """Address of this place with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, **changed).search() or "?"

    def of(self, *who: str | None) -> str:
        """Address of the statement of somebody else; of everybody, if they are shown already."""
        chosen = () if self.who == who else who
        return self.href(view=replace(self.view, filters=(("team", chosen),) if chosen else ()))

    def at(self, now: datetime) -> Month:
        """The month that is shown, at an instant, in the time zone in force."""
        return self.month or Month.of(now, presented().zone)

    def over(self, now: datetime) -> View:
        """The view of the month that is shown, compared with the one before."""
        return replace(self.view, range=days(self.at(now)), compare="previous", basis="effective")


def days(month: Month) -> str:
    """First and last day of a month, as the address of other pages has it."""
    period = month.period(presented().zone)
    last = local(period.end - timedelta(microseconds=1)).date()
    return f"{month.written}-01..{last.isoformat()}"

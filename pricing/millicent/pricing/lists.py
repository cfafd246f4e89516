"""The compiled price lists of one state of the price data, and where a call stands on them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from millicent.pricing import bundled
from millicent.pricing.bundled import Found
from millicent.pricing.rates import Entry
from millicent.pricing.tables import Rates

NOWHERE = 0
"""Index of the entry that stands for none."""
SELF_HOSTED = "self_hosted"
"""Billing of calls on own hardware."""

_REMEMBERED_LOOKUPS = 65_536


class Names(NamedTuple):
    """What a call is looked up by, as it was told; None where it was not."""

    provider: str | None
    model: str | None
    endpoint_host: str | None
    service_tier: str | None = None
    price_context: str | None = None
    region: str | None = None
    billing: str | None = None


class Lists:
    """Price lists by provider and model, with a variant for each request context. Immutable and shared by books."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.rates = Rates(entries)
        self._index = {(e.provider, e.model, e.variant): i for i, e in enumerate(self.rates.entries)}
        self._offered: dict[tuple[str, str], set[str]] = {}
        for entry in self.rates.entries[1:]:
            self._offered.setdefault((entry.provider, entry.model), set()).update(entry.variant)
        self.find = lru_cache(maxsize=_REMEMBERED_LOOKUPS)(bundled.find)

    def place(self, names: Names) -> int:
        """Index of the entry that a call is priced by; `NOWHERE` if there is none."""
        found = self.find(names.provider, names.model, names.endpoint_host) or self._gone(names)
        return NOWHERE if found is None else self._variant(found, names)

    def _gone(self, names: Names) -> Found | None:
        """A model of this state of the data that the installed data has no more, by its very name."""
        known = bundled.find_provider(names.provider, names.endpoint_host)
        if known is None or names.model is None or (known, names.model) not in self._offered:
            return None
        return None if names.model in bundled.model_ids(known) else Found(known, known, names.model)

    def like(self, listed: str, names: Names) -> int:
        """Index of the entry that the list of "provider/model" has for a call of these names."""
        provider, _, model = listed.partition("/")
        found = self.find(provider, model, None)
        return NOWHERE if found is None else self._variant(found, names)

    def _variant(self, found: Found, names: Names) -> int:
        standard = self._index.get((found.owner, found.model, ()), NOWHERE)
        if found.provider != found.owner:  # variants are what the owner itself offers
            return standard
        offered = self._offered.get((found.owner, found.model), set())
        context = bundled.context(names.service_tier, names.price_context)
        told = (f"{key}={value}" for key, value in sorted(context.items()))
        variant = tuple(one for one in told if one in offered)
        return self._index.get((found.owner, found.model, variant), standard)

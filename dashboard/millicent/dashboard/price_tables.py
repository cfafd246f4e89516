"""Lines of tables in which commands show prices, entries of ours, and what they change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from millicent.dashboard.terminal import short

Row = dict[str, Any]

_MTOK: Final = "_mtok"
_FIRST: Final = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_SCOPE: Final = ("provider", "model", "endpoint_host", "region", "service_tier", "name")


def listed(prices: Sequence[Row], *, dated: bool = False) -> list[Row]:
    """A price list with a column for each price that any row has; `dated` adds when each ends, and who says so."""
    keys = _ordered(key for row in prices for key in row["prices"])
    rows = []
    for row in prices:
        head = {name: row[name] for name in ("provider", "model", "variant", "above_input_tokens", "hours")}
        shown = {key.removesuffix(_MTOK): row["prices"].get(key) for key in keys}
        tail = {"to": short(row["effective_to"]), "source": row["source"]} if dated else {}
        rows.append({**head, "from": short(row["effective_from"]), **shown, "entry": row["own_entry"], **tail})
    return _filled(rows)


def entries(ours: Iterable[Row]) -> list[Row]:
    """Entries of ours."""
    return _filled(
        {
            "id": one["id"], "kind": one["kind"],
            "for": " ".join(str(one[name]) for name in _SCOPE if one.get(name)) or one.get("currency"),
            "price": _words(one), "from": short(one["effective_from"]), "to": short(one["effective_to"]),
            "known from": short(one["known_from"]), "retired": short(one["retired_at"]),
            "author": one["author"] or None, "source": one["source"], "note": one["note"] or None,
        }
        for one in ours
    )  # fmt: skip


def changes(found: Iterable[Row]) -> list[Row]:
    """Unit prices that entries change, old and new."""
    return _filled(
        {
            "provider": one["provider"], "model": one["model"], "host": one["endpoint_host"], "region": one["region"],
            "tier": one["service_tier"], "price": one["price"].removesuffix(_MTOK),
            "from": short(one["effective_from"]),
            **{cost: f"{one[f'{cost}_before'] or '—'} → {one[f'{cost}_after'] or '—'}" for cost in ("list", "billed")},
        }
        for one in found
    )  # fmt: skip


def past_changes(found: Iterable[Row]) -> list[Row]:
    """Past prices that an update tells otherwise."""
    return _filled(
        {
            "provider": one["provider"], "model": one["model"], "variant": ", ".join(one["variant"]) or None,
            "above": one["above"], "at": one["daily_from"], "price": one["key"].removesuffix(_MTOK),
            "from": short(one["effective_from"]), "to": short(one["effective_to"]),
            "old → new": f"{one['old'] or '—'} → {one['new'] or '—'}",
        }
        for one in found
    )  # fmt: skip


def unpriced(models: Iterable[Row]) -> list[Row]:
    """Models whose calls have no price."""
    return _filled(
        {
            "provider": row["provider"], "model": row["model"], "host": row["endpoint_host"],
            "status": row["price_status"], "calls": row["calls"], "tokens": row["tokens"],
            "first": short(row["first_at"]), "last": short(row["last_at"]),
            "close names": ", ".join(row["suggestions"]) or None, "why": row["reason"],
        }
        for row in models
    )  # fmt: skip


def _words(one: Row) -> str:
    """What an entry says about amounts."""
    said = []
    if one.get("prices"):
        said.append(", ".join(f"{key}={one['prices'][key]}" for key in _ordered(one["prices"])))
        said.append(one.get("currency") or "USD")
        said += [f"above {size['input_tokens']:,}: {len(size['prices'])} others" for size in one.get("above") or ()]
    if one.get("like"):
        said.append(f"like {one['like']}" + (f" × {one['multiply']}" if one.get("multiply") else ""))
    if one.get("percent_off"):
        said.append(f"{one['percent_off']} % off" + (f" {', '.join(one['keys'])}" if one.get("keys") else ""))
    if one.get("daily_from"):
        said.append(f"{one['daily_from']:.5}-{one['daily_to']:.5} {one['zone']}")
    if one.get("usd_per_unit"):
        said.append(f"1 {one['currency']} = {one['usd_per_unit']} USD")
    if one["kind"] == "charge":
        said.append(f"{one['type']} {one['amount_usd']} USD" if one["amount_usd"] else one["type"])
        said.append(", ".join(f"{tier['percent_off']} % above {tier['above_usd']} USD" for tier in one["tiers"]))
    return " ".join(filter(None, said))


def _ordered(keys: Iterable[str]) -> list[str]:
    """Each price once, the usual ones first."""
    told = dict.fromkeys(keys)
    return [*(key for key in _FIRST if key in told), *(key for key in told if key not in _FIRST)]


def _filled(rows: Iterable[Row]) -> list[Row]:
    """The rows without columns that are empty in all of them."""
    found = list(rows)
    shown = [name for name in (found[0] if found else ()) if any(row[name] is not None for row in found)]
    return [{name: row[name] for name in shown} for row in found]

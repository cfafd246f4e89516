"""The price data that ships with `genai-prices`, read as entries, and how a call finds its own.

The library is asked for its prices once per dated interval and time of day, so its rules about which price
is active are not written a second time here. Nothing is fetched: an update of that package is an update of
the prices.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from importlib.metadata import version as installed_version
from itertools import combinations, product

from genai_prices import data
from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from millicent.pricing.rates import Cell, Entry

VERSION = f"genai-prices {installed_version('genai-prices')}"

# Names of providers as instrumentations write them, where the price data does not know them itself or would
# take them for another ("azure.ai.openai" contains "openai").
PROVIDERS: Mapping[str, str] = {
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure-openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "fireworks_ai": "fireworks",
    "minimax_ai": "minimax",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "togetherai": "together",
    "x_ai": "x-ai",
    "z_ai": "zai",
    "z.ai": "zai",
}

# These name a client, a gateway or hardware of our own, not who sells the model: the model's own name decides.
NAMELESS = frozenset({"", "langchain", "litellm", "openai_compatible", "self-hosted", "strands-agents"})

# These serve what they like under any name: no price list holds.
UNLISTED = frozenset({"openai-compatible"})

# These name a wire format that many speak: a known endpoint decides before they do.
WIRE_FORMATS = frozenset({"openai", "openai.chat", "openai.completion", "openai.embedding", "openai.responses"})

# Service tiers as providers report them, in the context keys of the price data. A tier that is not here, and
# one that a model has no variant for, is billed at standard prices.
SERVICE_TIERS: Mapping[str, Mapping[str, str]] = {
    "batch": {"processing": "batch"},
    "default": {"service_tier": "default"},
    "fast": {"service_tier": "fast"},
    "flex": {"service_tier": "flex"},
    "on_demand_flex": {"service_tier": "flex"},
    "on_demand_priority": {"service_tier": "priority"},
    "priority": {"service_tier": "priority"},
}

# `genai_prices` knows this rule by the models' names too.
_LEAST_SECONDS: Mapping[tuple[str, str], int] = {
    ("groq", "whisper-large-v3"): 10,
    ("groq", "whisper-large-v3-turbo"): 10,
}

# Inference profiles and versions as Bedrock alone names them.
_OF_BEDROCK = re.compile(r"(us|eu|apac|jp|au|ca|us-gov|global)\.[a-z0-9]+\..+|[a-z0-9]+\..+-v\d+:\d+")

_LONGEST_NAME = 256
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_US = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Found:
    """Where a model was found: who served the call, and whose price list holds (`owner`)."""

    provider: str
    owner: str
    model: str


def find(provider: str | None, model: str | None, endpoint_host: str | None) -> Found | None:
    """Find the model that a call names.

    Args:
        provider: Provider as the instrumentation wrote it ("openai", "aws.bedrock", "gcp.vertex_ai").
        model: Model as requested or answered, dated or prefixed ("openai/gpt-4o") included.
        endpoint_host: Host name that was called, with or without port.

    Returns:
        None where the price data does not have it.
    """
    if not model or len(model) > _LONGEST_NAME or (provider or "").strip().lower() in UNLISTED:
        return None
    for candidate, reference in _candidates((provider or "").strip().lower(), model.lower(), endpoint_host):
        if info := candidate.find_model(reference, all_providers=data.providers):
            return Found(candidate.id, _owner(candidate, info), info.id)
    return None


def find_provider(provider: str | None, endpoint_host: str | None = None) -> str | None:
    """The id that the price data has for a provider, by name or else by endpoint; None if it has none."""
    known = _by_name((provider or "").strip().lower()) or _by_host(endpoint_host)
    return known.id if known else None


def model_ids(provider_id: str | None) -> list[str]:
    """Ids of the models on a provider's price list, those it falls back on included; None for all."""
    chosen = [provider for provider in data.providers if provider_id in {None, provider.id}]
    lists = {provider.id for provider in chosen}
    lists.update(each for provider in chosen for each in provider.fallback_model_providers or ())
    return [model.id for provider in data.providers if provider.id in lists for model in provider.models]


def context(service_tier: str | None, price_context: str | None) -> dict[str, str]:
    """The request context of a call in the keys of the price data; empty for standard prices.

    Args:
        service_tier: As the provider reported it.
        price_context: `key=value` texts joined by commas; what it says goes before what the tier stands for.
    """
    told = (one.partition("=") for one in (price_context or "").lower().split(",") if "=" in one)
    tier = SERVICE_TIERS.get((service_tier or "").strip().lower(), {})
    return {**tier, **{key.strip(): value.strip() for key, _, value in told}}


def entries() -> Iterator[Entry]:
    """Every price list of the data: each model's standard one, then those of every request context it knows."""
    for provider in data.providers:
        for model in provider.models:
            for offered in _contexts(model):
                yield _entry(provider, model, offered)


def _contexts(model: ModelInfo) -> Iterator[dict[str, str]]:
    """Every combination of what the model's variants ask for, none first."""
    offered: dict[str, list[str | None]] = {}
    for variant in model.price_variants or ():
        if any(price is not None for price in vars(variant.prices).values()):
            for key, value in variant.when.items():
                values = offered.setdefault(key, [None])
                values.extend([value] if value not in values else [])
    for combination in product(*offered.values()):
        yield {key: value for key, value in zip(offered, combination, strict=True) if value is not None}


def _candidates(provider: str, model: str, host: str | None) -> Iterator[tuple[Provider, str]]:
    """Providers to look the model up at, the likeliest first, with the name to look up there."""
    named = None if provider in NAMELESS else _by_name(provider)
    hosted = _by_host(host)
    if provider in NAMELESS or provider in WIRE_FORMATS:
        if hosted is not None:
            yield hosted, model
            return
    elif hosted is not None and named is None:
        named, hosted = hosted, None
    if named is not None:
        yield named, model
    prefix, _, rest = model.partition("/")
    prefixed = _by_name(prefix) if rest else None
    # At an unknown endpoint "openai" with "mistralai/…" is more likely open weights than that provider.
    open_name = provider in NAMELESS or (provider in WIRE_FORMATS and not host)
    if prefixed is not None and (open_name or prefixed is named):
        yield prefixed, rest
    if hosted is not None:
        yield hosted, model
    if provider in NAMELESS:
        if _OF_BEDROCK.fullmatch(model) and (bedrock := _by_name("aws")) is not None:
            yield bedrock, model
        matching = (p for p in data.providers if p.model_match is not None and p.model_match.is_match(model))
        if (first := next(matching, None)) is not None:
            yield first, model


def _by_name(name: str) -> Provider | None:
    """By id or by the data's own matching; an API suffix ("openai.chat") may follow the name."""
    if not name or name in UNLISTED:
        return None
    names = [name, name.rpartition(".")[0]]
    known = [PROVIDERS[each] for each in names if each in PROVIDERS]
    matches = (find_provider_by_id(data.providers, each) for each in (*known, *names) if each)
    return next((match for match in matches if match is not None), None)


def _by_host(host: str | None) -> Provider | None:
    if not host:
        return None
    url = host.strip().lower()
    url = re.sub(r"^(https://[^/]+):443(?=/|$)", r"\1", url if "://" in url else f"https://{url}")
    return next((provider for provider in data.providers if re.match(provider.api_pattern, url)), None)


def _owner(provider: Provider, model: ModelInfo) -> str:
    """The provider on whose list a model stands; some lists fall back on others'."""
    return _owners().get(id(model), provider.id)


@cache
def _owners() -> dict[int, str]:
    return {id(model): provider.id for provider in data.providers for model in provider.models}


def _entry(provider: Provider, model: ModelInfo, context: Mapping[str, str]) -> Entry:
    conditions = list(model.prices) if isinstance(model.prices, list) else []
    variants = [variant for variant in model.price_variants or () if _applies(variant, context)]
    constraints = [*(each.constraint for each in conditions), *(each.constraint for each in variants)]
    dates = sorted({c.start_date for c in constraints if isinstance(c, StartDateConstraint)})
    clocks = sorted({us for c in constraints if isinstance(c, TimeOfDateConstraint) for us in _clocks(c)} - {0})

    days = [dates[0] - _DAY, *dates] if dates else [_EPOCH.date()]
    instants = [_midnight(day) + clock * _US for day, clock in product(days, [0, *clocks])]
    grid = [model.get_prices(instant, context) for instant in instants]
    sizes = sorted({start for prices in grid for start in _tier_starts(prices)})
    least = _LEAST_SECONDS.get((provider.id, model.id), 0)
    cells = []
    for instant, prices in zip(instants, grid, strict=True):
        varied = _least_context(model, instant, context)
        since = max((day for day in dates if day <= instant.date()), default=None)
        for size in [None, *sizes]:
            words = (f"{provider.id}/{model.id}", *_narrowing(since, instant, clocks, size))
            label = " ".join((*words, *_variant(varied)))
            cells.append(Cell(label, _at_size(prices, size), least_seconds=least))
    return Entry(
        provider=provider.id,
        model=model.id,
        variant=_variant(context),
        dates=tuple((_midnight(day) - _EPOCH) // _US for day in dates),
        clocks=tuple(clocks),
        sizes=tuple(sizes),
        cells=tuple(cells),
        name=model.name,
        sources=tuple(provider.pricing_urls or ()),
        note=model.price_comments or provider.price_comments,
    )


def _least_context(model: ModelInfo, instant: datetime, context: Mapping[str, str]) -> dict[str, str]:
    """The smallest part of a request context that has the same prices."""
    prices = model.get_prices(instant, context)
    parts = (dict(part) for size in range(len(context) + 1) for part in combinations(context.items(), size))
    return next(part for part in parts if model.get_prices(instant, part) == prices)


def _applies(variant: PriceVariant, context: Mapping[str, str]) -> bool:
    same = all(context.get(key) == value for key, value in variant.when.items())
    return same and any(price is not None for price in vars(variant.prices).values())


def _variant(context: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in sorted(context.items()))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _clocks(constraint: TimeOfDateConstraint) -> list[int]:
    """Both ends of a daily interval, in microseconds since midnight UTC."""
    ends = (constraint.start_time, constraint.end_time)
    instants = [datetime.combine(_EPOCH, end, tzinfo=end.tzinfo or UTC) for end in ends]
    return [((instant - _EPOCH) % _DAY) // _US for instant in instants]


def _tier_starts(prices: ModelPrice) -> Iterator[int]:
    for price in vars(prices).values():
        if isinstance(price, TieredPrices):
            yield from (tier.start for tier in price.tiers)


def _at_size(prices: ModelPrice, above: int | None) -> dict[str, Decimal]:
    """Prices for requests above so many input tokens: the highest tier that they pass, else the base."""
    at_size = {}
    for key, price in vars(prices).items():
        if isinstance(price, TieredPrices):
            passed = [tier.price for tier in price.tiers if above is not None and tier.start <= above]
            at_size[key] = passed[-1] if passed else price.base
        elif price is not None:
            at_size[key] = price
    return at_size


def _narrowing(since: date | None, instant: datetime, clocks: list[int], size: int | None) -> Iterator[str]:
    """What an entry's name says beyond the model: `@from`, time of day, request size."""
    if since is not None:
        yield f"@{since.isoformat()}"
    if clocks:
        start = ((instant - _EPOCH) % _DAY) // _US
        yield f"{_hour(start)}-{_hour(min((clock for clock in clocks if clock > start), default=0))}Z"
    if size is not None:
        yield f">{size}"


def _hour(clock_us: int) -> str:
    return f"{_EPOCH + clock_us * _US:%H:%M}"

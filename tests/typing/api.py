"""The SDK's public API as apps write it. Nothing runs this file: mypy in strict mode is the test."""

from collections.abc import AsyncIterator, Generator, Iterator
from typing import assert_type, overload

from opentelemetry.sdk.trace import TracerProvider

from millicent.sdk import (
    BudgetExceeded,
    BudgetGuard,
    TokenSpanProcessor,
    TokenUsage,
    attribution,
    instrument,
    sdk_stats,
    track_tokens,
)


# A tracked function keeps its exact signature, bare and with arguments.
@track_tokens
def bare(prompt: str, *, model: str = "small") -> str:
    return prompt + model


@track_tokens(team="search", accelerator="H200", accelerator_count=8, labels={"tier": "gold"}, price_context={})
def tagged(prompt: str) -> int:
    return len(prompt)


assert_type(bare("?"), str)
assert_type(bare("?", model="large"), str)
assert_type(tagged("?"), int)
bare(1)  # type: ignore[arg-type]
bare("?", modle="typo")  # type: ignore[call-arg]
tagged()  # type: ignore[call-arg]
track_tokens(teem="typo")  # type: ignore[call-overload]
track_tokens("search")  # type: ignore[call-overload]


# So do coroutine functions, generators, asynchronous generators and functions that return streams.
@track_tokens
async def coroutine(prompt: str) -> bytes:
    return prompt.encode()


@track_tokens(team=None, model="qwen3-8b")
def generator() -> Generator[str, int, bool]:
    received = yield "?"
    return received > 0


@track_tokens
async def async_generator() -> AsyncIterator[float]:
    yield 0.5


@track_tokens
def stream() -> Iterator[str]:
    return iter("abc")


async def consume() -> None:
    assert_type(await coroutine("?"), bytes)
    assert_type(generator(), Generator[str, int, bool])
    assert_type([item async for item in async_generator()], list[float])
    assert_type(list(stream()), list[str])


# And methods, overloads, and functions that are tracked without decorator syntax.
class Client:
    @track_tokens
    def ask(self, prompt: str) -> TokenUsage:
        return TokenUsage(input_tokens=len(prompt), output_tokens=None)

    @staticmethod
    @track_tokens(engine="vllm")
    def version() -> str:
        return "1"

    @classmethod
    @track_tokens
    def make(cls) -> "Client":
        return cls()


assert_type(Client().ask("?"), TokenUsage)
assert_type(Client.version(), str)
assert_type(Client.make(), Client)
Client().ask(b"?")  # type: ignore[arg-type]


@overload
def either(value: int) -> int: ...
@overload
def either(value: str) -> str: ...
@track_tokens
def either(value: int | str) -> int | str:
    return value


assert_type(either(1), int)
assert_type(either("1"), str)


# Attribution is a context manager and a decorator.
with attribution(team="search", user_id="u1", cost_centre="77"):
    bare("?")


@attribution(project="assistant")
async def handler(path: str) -> int:
    with attribution(customer="acme", feature=None):
        return len(await coroutine(path))


async def handle() -> None:
    assert_type(await handler("/"), int)


attribution(team=1)  # type: ignore[arg-type]


# Stopping at a budget.
guard = BudgetGuard("block", on_failure="closed", estimate_usd="0.02", staleness_s=1)


@track_tokens(team="search", budget=guard)
def guarded(prompt: str) -> int:
    return len(prompt)


@track_tokens(budget="warn")
async def warned(prompt: str) -> int:
    async with guard as held:
        held.used(TokenUsage(input_tokens=1), model="small")
        held.cost("0.01")
        assert_type(held.reason, str | None)
    return len(prompt)


assert_type(guarded("?"), int)
try:
    with guard as held:
        assert_type(held.decision, str)
except BudgetExceeded as no:
    assert_type(no.budget, str | None)
assert_type(guard.flush(), bool)
track_tokens(budget="stop")  # type: ignore[call-overload]
BudgetGuard("stop")  # type: ignore[arg-type]

# Sending, and hearing how it went.
handle_of_sdk = instrument(
    "http://127.0.0.1:4318", "key", team="search", service="shop", energy=True, detect_hardware=True
)
assert_type(handle_of_sdk.flush(timeout_s=1.0), bool)
handle_of_sdk.shutdown()
assert_type(sdk_stats(), dict[str, int])

provider = TracerProvider()
provider.add_span_processor(TokenSpanProcessor({"millicent.team": "search"}))

usage = TokenUsage(input_tokens=10)
assert_type(usage.cache_read_tokens, int | None)
usage.input_tokens = 11  # type: ignore[misc]

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, overload

from millicent.sdk import attributes
from millicent.sdk.attribution import clean_price_context, clean_tags
from millicent.sdk.budget import BudgetGuard, Mode, guard_of
from millicent.sdk.call import Gate, Plan, start
from millicent.sdk.scope import wrap

F = TypeVar("F", bound=Callable[..., Any])

_WRITTEN_BY_THE_APP = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Tracker(Protocol):
    """Decorates a function without changing its type."""

    def __call__(self, func: F, /) -> F:
        """Return `func`, tracked."""


@overload
def track_tokens(func: F, /) -> F: ...


@overload
def track_tokens(
    *,
    team: str | None = None,
    project: str | None = None,
    feature: str | None = None,
    customer: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    operation: str | None = None,
    deployment: str | None = None,
    engine: str | None = None,
    accelerator: str | None = None,
    accelerator_count: int | None = None,
    precision: str | None = None,
    region: str | None = None,
    environment: str | None = None,
    labels: Mapping[str, str] | None = None,
    price_context: Mapping[str, str] | None = None,
    stream_usage: bool = False,
    estimate: bool | None = None,
    budget: Mode | BudgetGuard | None = None,
) -> Tracker: ...


def track_tokens(
    func: Callable[..., Any] | None = None,
    /,
    *,
    team: str | None = None,
    project: str | None = None,
    feature: str | None = None,
    customer: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    operation: str | None = None,
    deployment: str | None = None,
    engine: str | None = None,
    accelerator: str | None = None,
    accelerator_count: int | None = None,
    precision: str | None = None,
    region: str | None = None,
    environment: str | None = None,
    labels: Mapping[str, str] | None = None,
    price_context: Mapping[str, str] | None = None,
    stream_usage: bool = False,
    estimate: bool | None = None,
    budget: Mode | BudgetGuard | None = None,
) -> Any:
    """Record every call of a function that calls a model: tokens, model, time, and the tags given here.

    Decorates functions, coroutine functions, generators and asynchronous generators, and functions that return a
    stream; usage is read from what they return or yield. The function behaves as before in every respect: same
    result, same exceptions; a returned stream is replaced by a stand-in that behaves like it. Failures of the
    tracking itself are counted in `sdk_stats()` and never reach the app. No prompt or answer text is recorded.

    Args:
        func: The function, where the decorator is used bare.
        team: Who pays.
        project: For which project.
        feature: For which feature of the product.
        customer: On behalf of which customer.
        model: The model asked for; by default the call's `model` argument, else the response tells.
        provider: openai, anthropic, aws.bedrock, …; by default as far as the response is unmistakable.
        operation: chat, text_completion, embeddings or generate_content; by default the response tells, else chat.
        deployment: Which of our own deployments served it.
        engine: vllm, sglang, tensorrt-llm, …
        accelerator: Name of the accelerator behind the deployment.
        accelerator_count: Number of accelerators behind the deployment.
        precision: bf16, fp8, …
        region: Where the model runs.
        environment: production, staging, …
        labels: Any other tags.
        price_context: What was asked for that has a price of its own, where the response does not tell, by the names
            of the price data: `{"processing": "batch"}`, `{"search_type": "fast"}`.
        stream_usage: Ask OpenAI-compatible chat streams for their usage: a call with `stream=True` of the client's own
            `create` gets `stream_options={"include_usage": True}`, and the chunk that comes for it stays hidden.
            Not every server takes that option; without it, most tell no usage.
        estimate: Where no usage is told, count the tokens of the texts here, by the tokenizer of the model; such calls
            are marked as estimated. Needs `millicent-sdk[estimate]`. By default as `instrument` was told.
        budget: Ask the budgets that a call counts for before it is made: `block` raises `BudgetExceeded` where one says
            no, `warn` only logs it. A `BudgetGuard` says more. Where nobody answers, the call is made.

    Raises:
        TypeError: At decoration, if what is decorated cannot be called, or cannot be asked for `stream_usage`.
        ValueError: At decoration, if `budget` is neither block, warn nor a `BudgetGuard`.
        BudgetExceeded: From the decorated function, with `budget` alone: the call was not made.
    """
    named = {
        attributes.TEAM: team,
        attributes.PROJECT: project,
        attributes.FEATURE: feature,
        attributes.CUSTOMER: customer,
        attributes.DEPLOYMENT: deployment,
        attributes.ENGINE: engine,
        attributes.ACCELERATOR: accelerator,
        attributes.ACCELERATOR_COUNT: accelerator_count,
        attributes.PRECISION: precision,
        attributes.REGION: region,
        attributes.ENVIRONMENT: environment,
    }
    if estimate:
        from millicent.sdk.estimate import prepare  # noqa: PLC0415  # only those who ask for it pay for it

        prepare()
    plan = functools.partial(
        Plan,
        model=model,
        provider=provider,
        operation=operation,
        tags=clean_tags(named, labels),
        price_context=clean_price_context(price_context),
        estimate=estimate,
        stream_usage=stream_usage,
    )
    guard = None if budget is None else guard_of(budget)
    return _tracker(plan, guard) if func is None else _tracker(plan, guard)(func)


def _tracker(plan: Callable[..., Plan], guard: BudgetGuard | None) -> Callable[[Any], Any]:
    def track(func: Any) -> Any:
        if isinstance(func, staticmethod | classmethod):
            return type(func)(track(func.__func__))
        if not callable(func):
            raise TypeError(
                f"track_tokens decorates a function, got {func!r}; name its arguments: @track_tokens(team='search')"
            )
        parameters, default = _parameters(func)
        shared = plan(parameters=parameters, model_default=default)
        if shared.stream_usage and any(is_kind(func) for is_kind in _WRITTEN_BY_THE_APP):
            raise TypeError(
                f"stream_usage adds to the call that it decorates, and {func!r} only makes that call: "
                "decorate the client's own method, client.chat.completions.create"
            )
        return wrap(func, functools.partial(start, shared), None if guard is None else Gate(guard, shared))

    return track


def _parameters(func: Callable[..., Any]) -> tuple[tuple[str, ...], str | None]:
    """Return the parameters that `func` takes by position, and the default of its `model`."""
    try:
        parameters = inspect.signature(func).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return (), None
    model = parameters.get("model")
    default = model.default if model is not None and isinstance(model.default, str) else None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, parameter in parameters.items() if parameter.kind in positional), default

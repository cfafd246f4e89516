"""Google's generateContent and embedContent, on the Gemini API and on Vertex AI; objects and JSON.

The prompt includes what was read from a cache and leaves out what tools returned; the candidates leave out the
thoughts; the total has all (https://ai.google.dev/api/generate-content#UsageMetadata). Every chunk of a stream counts
from the start, so the last one is right.
"""

from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Look, Reading, count, items, look_into, text, whole

_BILLED_PER_PROMPT: Final = ("gemini-1", "gemini-2")
_MODALITIES: Final = (
    ("prompt_tokens_details", "promptTokensDetails", {"AUDIO": key.INPUT_AUDIO, "IMAGE": key.INPUT_IMAGE}),
    ("tool_use_prompt_tokens_details", "toolUsePromptTokensDetails", {"AUDIO": key.INPUT_AUDIO}),
    ("candidates_tokens_details", "candidatesTokensDetails", {"AUDIO": key.OUTPUT_AUDIO}),
    ("response_tokens_details", "responseTokensDetails", {"AUDIO": key.OUTPUT_AUDIO}),
)


def generate_content(_: Any, look: Look, so_far: Counts) -> Reading | None:
    """A response, a chunk of a stream, embeddings, or the usage alone."""
    told = _either(look, "usage_metadata", "usageMetadata")
    alone = told is None
    usage = look if alone else look_into(told)
    counted = _usage(usage)
    model, response_id = _text(look, "model_version", "modelVersion"), _text(look, "response_id", "responseId")
    if alone and counted is not None:
        return Reading(counted)
    embeddings = look("embeddings")
    if counted is None and (sent := _embedded(embeddings)) is not None:
        counted = {key.INPUT: sent}
    candidates = look("candidates")
    if counted is None and (model is None or candidates is None):
        return None
    searches = max(so_far.get(key.WEB_SEARCHES, 0), _searches(candidates, model or ""))
    if searches:
        counted = (so_far if counted is None else counted) | {key.WEB_SEARCHES: searches}
    traffic = _text(usage, "traffic_type", "trafficType")
    return Reading(
        counted,
        model,
        response_id,
        "gcp.gen_ai" if traffic is None else "gcp.vertex_ai",  # only Vertex tells the kind of traffic
        "generate_content" if embeddings is None else "embeddings",
        traffic or _text(usage, "service_tier", "serviceTier"),
    )


def _usage(usage: Look) -> Counts | None:
    sent = count(_either(usage, "prompt_token_count", "promptTokenCount"))
    if sent is None:
        return None
    tools = count(_either(usage, "tool_use_prompt_token_count", "toolUsePromptTokenCount"))
    found: Counts = {key.INPUT: sent + (tools or 0)}
    visible = count(_either(usage, "candidates_token_count", "candidatesTokenCount"))
    if visible is None:
        visible = count(_either(usage, "response_token_count", "responseTokenCount"))  # live sessions
    thoughts = count(_either(usage, "thoughts_token_count", "thoughtsTokenCount"))
    total = count(_either(usage, "total_token_count", "totalTokenCount"))
    came_out = None if visible is None and thoughts is None else (visible or 0) + (thoughts or 0)
    if total is not None and (came_out is None or total - found[key.INPUT] > came_out):
        came_out = max(0, total - found[key.INPUT])  # what no counter explains was thought, and is billed
    for attribute, tokens in (
        (key.OUTPUT, came_out),
        (key.REASONING, thoughts),
        (key.CACHE_READ, count(_either(usage, "cached_content_token_count", "cachedContentTokenCount"))),
    ):
        if tokens is not None:
            found[attribute] = tokens
    for snake, camel, kinds in _MODALITIES:
        for part in items(_either(usage, snake, camel)):
            detail = look_into(part)
            attribute_of_kind = kinds.get(_modality(detail("modality")))
            tokens = count(_either(detail, "token_count", "tokenCount"))
            if attribute_of_kind is not None and tokens is not None:
                found[attribute_of_kind] = found.get(attribute_of_kind, 0) + tokens
    return found


def _embedded(embeddings: Any) -> int | None:
    """Vertex counts the tokens of each text that it embeds, and not their sum."""
    parts = [look_into(look_into(each)("statistics")) for each in items(embeddings)]
    tokens = [whole(_either(part, "token_count", "tokenCount")) for part in parts]
    known = [each for each in tokens if each is not None]
    return sum(known) if known and len(known) == len(tokens) else None


def _searches(candidates: Any, model: str) -> int:
    """Searches of the web that are billed: each query once, and up to Gemini 2.5 one for all of them.

    https://ai.google.dev/gemini-api/docs/google-search#pricing
    """
    queries: set[str] = set()
    for candidate in items(candidates):
        grounding = _either(look_into(candidate), "grounding_metadata", "groundingMetadata")
        if grounding is not None:
            told = items(_either(look_into(grounding), "web_search_queries", "webSearchQueries"))
            queries.update(query for query in told if isinstance(query, str) and query.strip())
    return min(len(queries), 1) if model.startswith(_BILLED_PER_PROMPT) else len(queries)


def _modality(value: object) -> str:
    return value if isinstance(value, str) else str(getattr(value, "name", ""))


def _either(look: Look, snake: str, camel: str) -> Any:
    value = look(snake)
    return look(camel) if value is None else value


def _text(look: Look, snake: str, camel: str) -> str | None:
    return text(look, snake) or text(look, camel)

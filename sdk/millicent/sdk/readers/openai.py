"""OpenAI's shapes, which many others speak: completions, embeddings, responses, images, transcriptions, realtime.

Cached, written, reasoning, audio and image tokens are parts of OpenAI's totals
(https://platform.openai.com/docs/api-reference). Azure OpenAI, Mistral, DeepSeek, Groq, xAI, Moonshot, vLLM, SGLang
and LiteLLM write the same objects; where they differ, their fields stand beside OpenAI's in the tables below.
"""

from collections.abc import Mapping
from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Fields, Look, Reading, count, counts, items, look_into, text

_COMPLETION_FIELDS: Final[Fields] = {
    "": {"prompt_tokens": key.INPUT, "completion_tokens": key.OUTPUT},
    "prompt_tokens_details": {
        "cached_tokens": key.CACHE_READ,
        "cache_write_tokens": key.CACHE_WRITE,
        "audio_tokens": key.INPUT_AUDIO,
        "image_tokens": key.INPUT_IMAGE,
        "cache_creation_tokens": key.CACHE_WRITE,  # LiteLLM
        "web_search_requests": key.WEB_SEARCHES,  # LiteLLM
    },
    "completion_tokens_details": {"reasoning_tokens": key.REASONING, "audio_tokens": key.OUTPUT_AUDIO},
    "server_tool_use": {"web_search_requests": key.WEB_SEARCHES},  # LiteLLM, of Anthropic's
}
_FLAT_FIELDS: Final[Fields] = {
    "": {
        "prompt_cache_hit_tokens": key.CACHE_READ,  # DeepSeek
        "cached_tokens": key.CACHE_READ,  # Moonshot
        "num_cached_tokens": key.CACHE_READ,  # Mistral
        "cached_prompt_text_tokens": key.CACHE_READ,  # xAI's own package
        "prompt_image_tokens": key.INPUT_IMAGE,  # the same
        "reasoning_tokens": key.REASONING,  # the same, SGLang, Perplexity
    }
}
"""What others put beside the totals, where OpenAI has details."""

_RESPONSE_FIELDS: Final[Fields] = {
    "": {"input_tokens": key.INPUT, "output_tokens": key.OUTPUT},
    "input_tokens_details": {
        "cached_tokens": key.CACHE_READ,
        "cache_write_tokens": key.CACHE_WRITE,
        "audio_tokens": key.INPUT_AUDIO,
        "image_tokens": key.INPUT_IMAGE,
    },
    "output_tokens_details": {"reasoning_tokens": key.REASONING, "audio_tokens": key.OUTPUT_AUDIO},
    # Realtime and transcriptions write "token" where the others write "tokens".
    "input_token_details": {
        "cached_tokens": key.CACHE_READ,
        "audio_tokens": key.INPUT_AUDIO,
        "image_tokens": key.INPUT_IMAGE,
    },
    "output_token_details": {"reasoning_tokens": key.REASONING, "audio_tokens": key.OUTPUT_AUDIO},
    "server_side_tool_usage_details": {  # xAI
        "web_search_calls": key.WEB_SEARCHES,
        "x_search_calls": key.SOCIAL_SEARCHES,
        "file_search_calls": key.STORAGE_SEARCHES,
        "code_interpreter_calls": key.CODE_EXECUTIONS,
    },
}
_WRITE_FIELDS: Final[Fields] = {
    "cache_write_tokens_details": {"ttl_30m_tokens": key.CACHE_WRITE_30M, "ttl_12h_tokens": key.CACHE_WRITE_12H},
    "cache_creation_token_details": {  # LiteLLM, of Anthropic's
        "ephemeral_5m_input_tokens": key.CACHE_WRITE_5M,
        "ephemeral_1h_input_tokens": key.CACHE_WRITE_1H,
    },
}

_SEARCH_FIELDS: Final[Fields] = {"": {"invocation": key.WEB_SEARCHES}}
_SEARCHES: Final = {"web_search_call": key.WEB_SEARCHES, "file_search_call": key.STORAGE_SEARCHES}
"""Items of an answer that are billed one by one."""

_OPERATIONS: Final = {
    "chat.completion": "chat",
    "chat.completion.chunk": "chat",
    "text_completion": "text_completion",
    "list": "embeddings",
}

# Models that only their maker serves under these names and identifiers. Open weights are served by anybody.
_OPENAI_MODELS: Final = ("gpt-3", "gpt-4", "gpt-5", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "ft:gpt-")
_OPENAI_IDS: Final = ("chatcmpl-", "resp_", "cmpl-")

_LITELLM: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LiteLLM's providers in OpenTelemetry's words. Its "openai" is anybody who speaks OpenAI's format."""


def completions(answer: Any, look: Look, _: Counts) -> Reading | None:
    """Chat completions, legacy completions and embeddings; whole, chunk (the last has the usage), or usage alone."""
    used, kind = look("usage"), text(look, "object")
    operation = None if kind is None else _OPERATIONS.get(kind)
    if used is None and operation == "chat" and (groq := look("x_groq")) is not None:
        used = look_into(groq)("usage")
    usage, is_embeddings = look_into(used), operation == "embeddings"
    is_counted = usage("prompt_tokens") is not None or (is_embeddings and usage("total_tokens") is not None)
    if not is_counted and (operation is None or is_embeddings):  # a "list" without usage is any list
        return None if look("prompt_tokens") is None else Reading(_completion_usage(look))
    model, response_id = text(look, "model"), text(look, "id")
    counted = _completion_usage(usage) if is_counted else None
    if is_embeddings and counted is None and (total := count(usage("total_tokens"))):
        counted = {key.INPUT: total}  # Voyage and Jina tell the total alone
    request_id = text(look, "_request_id")
    return Reading(
        counted,
        model,
        response_id,
        _litellm_provider(answer) or _provider(look, model, response_id),
        operation,
        text(look, "service_tier") or text(usage, "service_tier"),
        key.OPENAI_TIER,
        request_id,
        request_id and key.REQUEST_ID,
    )


def _completion_usage(usage: Look) -> Counts | None:
    found = counts(usage, _COMPLETION_FIELDS)
    if key.CACHE_READ not in found or key.REASONING not in found:
        found = counts(usage, _FLAT_FIELDS) | found
    if key.CACHE_WRITE in found:
        found |= counts(look_into(usage("prompt_tokens_details")), _WRITE_FIELDS)
    sent, output, total = found.get(key.INPUT, 0), found.get(key.OUTPUT), count(usage("total_tokens"))
    if not (sent or output or total):
        return None  # a placeholder: no call has neither input nor output
    reasoning = found.get(key.REASONING)
    # xAI leaves reasoning out of the output; its total shows it, or the reasoning that does not fit in.
    if reasoning and output is not None and (total == sent + output + reasoning or reasoning > output):
        found[key.OUTPUT] = output + reasoning
    return found or None


def responses(_: Any, look: Look, __: Counts) -> Reading | None:
    """The Responses API and its like: the response, the stream events that carry it, or its usage alone."""
    event = text(look, "type")
    if event is not None and event.startswith("response."):
        look = look_into(look("response"))
    usage = look_into(look("usage"))
    kind = text(look, "object")
    if kind not in ("response", "realtime.response") and not _is_response_usage(usage):
        return Reading(_response_usage(look)) if _is_response_usage(look) else None
    model, response_id, request_id = text(look, "model"), text(look, "id"), text(look, "_request_id")
    counted = _response_usage(usage)
    if counted is not None:
        counted = _searches(look("output")) | counted
    return Reading(
        counted,
        model,
        response_id,
        _provider(look, model, response_id),
        "chat",
        text(look, "service_tier"),
        key.OPENAI_TIER,
        request_id,
        request_id and key.REQUEST_ID,
    )


def _is_response_usage(usage: Look) -> bool:
    """Tell by the details; but "input_token_details" is LangChain's too, with other counters in it."""
    if usage("input_tokens_details") is not None:
        return True
    details = usage("input_token_details")
    return details is not None and look_into(details)("text_tokens") is not None


def _response_usage(usage: Look) -> Counts | None:
    found = counts(usage, _RESPONSE_FIELDS)
    if key.CACHE_WRITE in found:
        found |= counts(look_into(usage("input_tokens_details")), _WRITE_FIELDS)
    if (tools := usage("tool_calls_details")) is not None:  # Perplexity
        found = counts(look_into(look_into(tools)("search_web")), _SEARCH_FIELDS) | found
    return found or None


def _searches(output: Any) -> Counts:
    """Count the calls of OpenAI's own tools that are billed: searches, and not the reading of a page that was found.

    https://platform.openai.com/docs/guides/tools-web-search
    """
    found: Counts = {}
    for item in items(output):
        look = look_into(item)
        attribute = _SEARCHES.get(text(look, "type") or "")
        if attribute is None or text(look, "status") == "failed":
            continue
        if text(look_into(look("action")), "type") in (None, "search"):
            found[attribute] = found.get(attribute, 0) + 1
    return found


def _provider(look: Look, model: str | None, response_id: str | None) -> str | None:
    if look("prompt_filter_results") is not None:
        return "azure.ai.openai"  # the verdict of its content filter, on the first chunk of a stream
    if model is None or not model.startswith(_OPENAI_MODELS):
        return None
    return None if response_id is not None and not response_id.startswith(_OPENAI_IDS) else "openai"


def _litellm_provider(answer: object) -> str | None:
    if not type(answer).__module__.startswith("litellm"):
        return None
    hidden = look_into(getattr(answer, "_hidden_params", None))
    return _LITELLM.get(text(hidden, "custom_llm_provider") or "")

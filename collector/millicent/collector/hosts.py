"""Who served a call, by the host that answered: a provider's API, something of our own, or nobody we know.

What instrumentations write as the provider is often a wire format that many servers speak ("openai" against vLLM), so
the host is asked first. `API_HOSTS` is the table; everything else is decided from the form of the host's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

OURS: Final = "self-hosted"
"""Provider of a call to our own hardware, where what was told is a wire format."""
COMPATIBLE: Final = "openai-compatible"
"""Provider of a call at a host that is neither ours nor a known API: it speaks a wire format, no price list holds."""


@dataclass(frozen=True, slots=True)
class ApiHost:
    """Hosts of one provider's API: an expression over the whole name, in lower case.

    `also` are other names of providers that are right at these hosts and stay as they were told.
    """

    pattern: str
    provider: str
    also: tuple[str, ...] = ()


API_HOSTS: Final = (
    ApiHost(r"(.+\.)?api\.openai\.com", "openai"),
    ApiHost(
        r".+\.(openai\.azure\.(com|us|cn)|cognitiveservices\.azure\.(com|us|cn)|azure-api\.net)",
        "azure.ai.openai",
        ("azure.ai.inference",),
    ),
    ApiHost(r".+\.(services|models|inference)\.ai\.azure\.com", "azure.ai.inference", ("azure.ai.openai", "anthropic")),
    ApiHost(r"(.+\.)?api\.anthropic\.com", "anthropic"),
    ApiHost(
        r"(.+\.)?bedrock-runtime(-fips)?\.[a-z0-9-]+\.(vpce\.)?amazonaws\.com(\.cn)?|bedrock-mantle\.[a-z0-9-]+\.api\.aws",
        "aws.bedrock",
    ),
    ApiHost(
        r"([a-z0-9-]+-)?aiplatform\.googleapis\.com|aiplatform\.[a-z0-9-]+\.rep\.googleapis\.com",
        "gcp.vertex_ai",
        ("gcp.gemini", "gcp.gen_ai"),
    ),
    ApiHost(r"generativelanguage\.googleapis\.com", "gcp.gemini", ("gcp.gen_ai", "gcp.vertex_ai")),
    ApiHost(r"(api\.)?openrouter\.ai", "openrouter"),
    ApiHost(r"api\.groq\.com", "groq"),
    ApiHost(r"(.+\.)?api\.x\.ai", "x_ai"),
    ApiHost(r"api\.deepseek\.com", "deepseek"),
    ApiHost(r"(api|codestral)\.mistral\.ai", "mistral_ai"),
    ApiHost(r"api\.cohere\.(ai|com)", "cohere"),
    ApiHost(r"api\.perplexity\.ai", "perplexity"),
    ApiHost(r"api\.moonshot\.(ai|cn)", "moonshot_ai"),
    ApiHost(r"(.+\.)?ml\.cloud\.ibm\.com", "ibm.watsonx.ai"),
    ApiHost(r"api\.together\.(xyz|ai)", "together"),
    ApiHost(r"api\.fireworks\.ai", "fireworks"),
    ApiHost(r"api\.cerebras\.ai", "cerebras"),
    ApiHost(r"api\.sambanova\.ai", "sambanova"),
    ApiHost(r"api\.novita\.ai", "novita"),
    ApiHost(r"api\.deepinfra\.com", "deepinfra"),
    ApiHost(r"api\.(studio|tokenfactory)\.nebius\.(com|ai)", "nebius"),
    ApiHost(r"api\.hyperbolic\.xyz", "hyperbolic"),
    ApiHost(r"inference\.baseten\.co", "baseten"),
    ApiHost(r"integrate\.api\.nvidia\.com", "nvidia"),
    ApiHost(r"router\.huggingface\.co|api-inference\.huggingface\.co", "huggingface"),
    ApiHost(r"api\.voyageai\.com", "voyageai"),
    ApiHost(r"api\.z\.ai", "z_ai"),
    ApiHost(r"open\.bigmodel\.cn", "zhipuai"),
    ApiHost(r"api\.minimaxi?\.(com|io|chat)", "minimax"),
    ApiHost(r"dashscope(-intl|-us)?\.aliyuncs\.com", "alibaba_cloud"),
    ApiHost(r"api\.githubcopilot\.com", "github-copilot"),
    ApiHost(r"models\.github\.ai", "github"),
    ApiHost(r".+\.(cloud\.databricks\.com|azuredatabricks\.net|gcp\.databricks\.com)", "databricks"),
    ApiHost(r".+\.endpoints\.kepler\.ai\.cloud\.ovh\.net", "ovhcloud"),
    ApiHost(r"api\.replicate\.com", "replicate"),
    ApiHost(r"api\.ai21\.com", "ai21"),
)
"""The first one that fits decides."""

LOOPBACK: Final = r"localhost|.+\.localhost|127(\.\d{1,3}){3}|0\.0\.0\.0|\[?::1\]?"
"""Whatever runs beside the app: an engine, but as likely a proxy, a tunnel or a sidecar of a real API."""
PRIVATE: Final = (
    r"10(\.\d{1,3}){3}|172\.(1[6-9]|2\d|3[01])(\.\d{1,3}){2}|192\.168(\.\d{1,3}){2}|169\.254(\.\d{1,3}){2}"
    r"|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])(\.\d{1,3}){2}"
    r"|\[?f[cd][0-9a-f]{2}:.*|\[?fe[89ab][0-9a-f]:.*"
    r"|[^.:]+|.+\.(internal|local|localdomain|lan|intranet|corp|home\.arpa|svc)"
)
"""Addresses and names that mean something inside one network alone, those of a cluster included."""

ENGINES: Final[Mapping[str, str]] = {
    "vllm": "vllm",
    "hosted_vllm": "vllm",
    "sglang": "sglang",
    "trtllm": "tensorrt-llm",
    "trt-llm": "tensorrt-llm",
    "tensorrt-llm": "tensorrt-llm",
    "tensorrt_llm": "tensorrt-llm",
    "ollama": "ollama",
    "llamacpp": "llama.cpp",
    "llama.cpp": "llama.cpp",
    "llama-cpp": "llama.cpp",
    "llama_cpp": "llama.cpp",
    "tgi": "tgi",
    "text-generation-inference": "tgi",
    "lmdeploy": "lmdeploy",
    "lmstudio": "lmstudio",
    "lm_studio": "lmstudio",
    "llamafile": "llamafile",
}
"""Engines by what hosts, services and instrumentations call them."""

WIRE: Final = (
    "openai", "openai.chat", "openai.completion", "openai.embedding", "openai.responses", "openai_compatible",
    "openai-compatible", "openai_like", "custom", "custom_openai", "unknown", "self-hosted", "self_hosted", "langchain",
    "litellm", "litellm_proxy", "strands-agents", *ENGINES,
)  # fmt: skip
"""Told as the provider, these name a way of speaking or a client, not who serves."""

CLOSED: Final = (
    r"^(.*/)?(gpt-(3\.5|[4-9])|chatgpt-|o[1-9]($|-)|text-embedding-(3|ada)|(gpt-)?(realtime|audio|image)-"
    r"|whisper-1|tts-1|dall-e|claude-|gemini-)"
)
"""Models whose weights nobody but their maker has: no engine of our own can be what answered."""

_TOKEN: Final = "|".join(sorted((name.replace(".", r"\.") for name in ENGINES), key=len, reverse=True))
_ENGINE_IN_NAME: Final = rf"(?:^|[^a-z0-9])({_TOKEN})(?:[^a-z0-9]|$)"
_ENGINE_FIRST: Final = rf"^({_TOKEN})(?:[^a-z0-9]|$)"
_URL: Final = r"^(?:[a-z][a-z0-9+.-]*://)?(?:[^/@]*@)?(\[[0-9a-f:.%]+\]|[^/:?#\[\]]+)\.?(?::(\d{1,5}))?(?:[/?#]|$)"
_BARE_IPV6: Final = r"^[0-9a-f.]*:[0-9a-f.]*:[0-9a-f:.%]*$"


def named(spans: pl.DataFrame) -> pl.DataFrame:
    """`spans` with `endpoint_host` in one form, and `endpoint_port` where only the address tells it.

    Addresses come as a name, `host:port` or a whole URL. A host is in lower case, without scheme, user, path and last
    dot; what has no host in it stays as told.
    """
    said = pl.col("endpoint_host").str.strip_chars().str.to_lowercase()
    bare = said.str.contains(_BARE_IPV6)
    host = pl.when(bare).then(said).otherwise(said.str.extract(_URL, 1).str.strip_suffix("."))
    addresses = _distinct(spans, "endpoint_host").with_columns(
        host=pl.coalesce(pl.when(host != "").then(host), pl.when(said != "").then(said)),
        port=pl.when(~bare).then(said.str.extract(_URL, 2)).cast(pl.Int64, strict=False),
    )
    told = spans.select("endpoint_host").join(
        addresses, on="endpoint_host", how="left", nulls_equal=True, maintain_order="left"
    )
    port = pl.coalesce(spans["endpoint_port"], told["port"]) if "endpoint_port" in spans.columns else told["port"]
    return spans.with_columns(endpoint_host=told["host"], endpoint_port=port)


def known(spans: pl.DataFrame) -> pl.DataFrame:
    """What the hosts, models and services of `spans` tell; each distinct one is looked at once.

    Args:
        spans: columns `endpoint_host` (as `named` gives it), `model`, `provider`, `service`.

    Returns:
        Same height and order: `kind` (api, loopback, private, unknown; null without a host), `api_provider` and
        `api_also` (of `API_HOSTS`), `closed` (is the model of `CLOSED`?), `wire` (is the provider unknown
        or of `WIRE`?), `host_engine`, `service_engine`, `told_engine` (engines that these names name).
    """
    host, service = pl.col("endpoint_host"), pl.col("service").str.to_lowercase()
    fits = [host.str.contains(f"^(?:{row.pattern})$") for row in API_HOSTS]
    hosts = _distinct(spans, "endpoint_host").with_columns(
        api_provider=pl.coalesce(
            *(pl.when(it).then(pl.lit(row.provider)) for it, row in zip(fits, API_HOSTS, strict=True))
        ),
        api_also=pl.coalesce(
            *(pl.when(it).then(pl.lit(list(row.also))) for it, row in zip(fits, API_HOSTS, strict=True))
        ),
        near=pl.when(host.str.contains(f"^(?:{LOOPBACK})$")).then(pl.lit("loopback"))
        .when(host.str.contains(f"^(?:{PRIVATE})$")).then(pl.lit("private"))
        .when(host.is_not_null()).then(pl.lit("unknown")),
        host_engine=_engine(host.str.extract(_ENGINE_IN_NAME)),
    )  # fmt: skip
    hosts = hosts.select(
        "endpoint_host", "api_provider", "api_also", "host_engine",
        kind=pl.when(pl.col("api_provider").is_not_null()).then(pl.lit("api")).otherwise("near"),
    )  # fmt: skip
    models = _distinct(spans, "model").with_columns(
        closed=pl.col("model").str.to_lowercase().str.contains(CLOSED).fill_null(False)
    )
    services = _distinct(spans, "service").with_columns(service_engine=_engine(service.str.extract(_ENGINE_FIRST)))
    providers = _distinct(spans, "provider").with_columns(
        wire=pl.col("provider").is_in(WIRE).fill_null(True), told_engine=_engine(pl.col("provider"))
    )
    found = spans.select("endpoint_host", "model", "service", "provider")
    for table, key in ((hosts, "endpoint_host"), (models, "model"), (services, "service"), (providers, "provider")):
        found = found.join(table, on=key, how="left", nulls_equal=True, maintain_order="left")
    return found.drop("endpoint_host", "model", "service", "provider")


def _distinct(spans: pl.DataFrame, name: str) -> pl.DataFrame:
    return spans.select(name).unique()


def _engine(name: pl.Expr) -> pl.Expr:
    return name.replace_strict(ENGINES, default=None, return_dtype=pl.String)

"""Every attribute key the SDK writes. OpenTelemetry's own names where it has one, `millicent.*` where not."""

from typing import Final

SCOPE: Final = "millicent.sdk"  # instrumentation scope of every span we start
VERSION: Final = "0.1.0"  # and its version; package metadata would take 10 ms of every app's start to read

# What was called
OPERATION: Final = "gen_ai.operation.name"  # chat | text_completion | embeddings | generate_content
PROVIDER: Final = "gen_ai.provider.name"  # openai, anthropic, aws.bedrock, …
REQUEST_MODEL: Final = "gen_ai.request.model"  # the model asked for
RESPONSE_MODEL: Final = "gen_ai.response.model"  # the model that answered
RESPONSE_ID: Final = "gen_ai.response.id"  # the provider's identifier of the answer
REQUEST_ID: Final = "millicent.request_id"  # the provider's identifier of the request, where no other key has it
ANTHROPIC_REQUEST_ID: Final = "anthropic.request.id"  # Anthropic's
AWS_REQUEST_ID: Final = "aws.request_id"  # that of Amazon Bedrock
STREAM: Final = "gen_ai.request.stream"  # true for a stream, absent otherwise
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"  # seconds, double
OPENAI_TIER: Final = "openai.response.service_tier"  # as reported by an OpenAI-shaped answer
ANTHROPIC_TIER: Final = "anthropic.response.service_tier"  # as reported by an Anthropic-shaped answer
TIER: Final = "millicent.service_tier"  # as reported by any other
ERROR_TYPE: Final = "error.type"  # qualified name of the exception
STATUS: Final = "millicent.status"  # "cancelled": stopped by the caller before its end; absent otherwise
USAGE_SOURCE: Final = "millicent.usage_source"  # reported | estimated | missing; absent on a refused call

# What it used: integers, inclusive (a part is inside its total), absent = unknown
INPUT: Final = "gen_ai.usage.input_tokens"  # everything that went in
OUTPUT: Final = "gen_ai.usage.output_tokens"  # everything that came out
CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"  # of the input: read from a prompt cache
CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"  # of the input: written to a prompt cache
CACHE_WRITE_5M: Final = "millicent.usage.cache_write.5m.input_tokens"  # of the writes: kept 5 minutes
CACHE_WRITE_30M: Final = "millicent.usage.cache_write.30m.input_tokens"  # kept 30 minutes
CACHE_WRITE_1H: Final = "millicent.usage.cache_write.1h.input_tokens"  # kept an hour
CACHE_WRITE_12H: Final = "millicent.usage.cache_write.12h.input_tokens"  # kept 12 hours
REASONING: Final = "gen_ai.usage.reasoning.output_tokens"  # of the output: thinking
INPUT_AUDIO: Final = "gen_ai.usage.audio.input_tokens"  # of the input: audio
OUTPUT_AUDIO: Final = "gen_ai.usage.audio.output_tokens"  # of the output: audio
INPUT_IMAGE: Final = "gen_ai.usage.image.input_tokens"  # of the input: images

# What else is billed for it: integers by the price data's names; absent = unknown
WEB_SEARCHES: Final = "millicent.usage.units.web_searches"  # searches of the web that the provider made
SOCIAL_SEARCHES: Final = "millicent.usage.units.social_searches"  # of a social network
STORAGE_SEARCHES: Final = "millicent.usage.units.storage_searches"  # of files that were stored with it
CODE_EXECUTIONS: Final = "millicent.usage.units.code_executions"  # runs of code in its sandbox
UNITS_PREFIX: Final = "millicent.usage.units."  # + name: any other unit, such as audio_seconds

# What was asked for that has a price of its own: text
SPEED: Final = "millicent.price.speed"  # fast, where the provider says so; absent for the usual one
PRICE_PREFIX: Final = "millicent.price."  # + processing, speed, service_tier, route, search_type

# Who it was for and what it ran on: strings on span, resource and baggage
TEAM: Final = "millicent.team"  # who pays
PROJECT: Final = "millicent.project"  # for which project
FEATURE: Final = "millicent.feature"  # for which feature of the product
CUSTOMER: Final = "millicent.customer"  # on behalf of which customer
ENVIRONMENT: Final = "millicent.environment"  # production, staging, …
REGION: Final = "millicent.region"  # where the model ran
DEPLOYMENT: Final = "millicent.deployment"  # which of our own deployments served it
ENGINE: Final = "millicent.engine"  # vllm, sglang, tensorrt-llm, …
ACCELERATOR: Final = "millicent.accelerator"  # name of the accelerator
ACCELERATOR_COUNT: Final = "millicent.accelerator_count"  # accelerators behind the deployment; integer on a span
PRECISION: Final = "millicent.precision"  # bf16, fp8, …
USER_ID: Final = "user.id"  # the end user
SESSION_ID: Final = "session.id"  # the conversation or visit
LABEL_PREFIX: Final = "millicent.label."  # + name: any other tag
TAG_PREFIX: Final = "millicent."  # every tag but the two that OpenTelemetry names itself

# What its accelerators used: the metric of OpenTelemetry's conventions for hardware, and its points' attributes
ENERGY: Final = "hw.energy"  # joules since the driver was loaded, a counter; one point per accelerator
HARDWARE_ID: Final = "hw.id"  # UUID of the board
HARDWARE_TYPE: Final = "hw.type"  # gpu
HARDWARE_NAME: Final = "hw.name"  # as the driver calls it
HARDWARE_VENDOR: Final = "hw.vendor"  # NVIDIA or AMD

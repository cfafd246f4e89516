"""Providers, as OpenTelemetry names them, by every other spelling in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PROVIDERS: Final[Mapping[str, str | None]] = {
    "az.ai.inference": "azure.ai.inference",
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "amazon-bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google.generative-ai": "gcp.gemini",
    "google.vertex": "gcp.vertex_ai",
    "google-vertex": "gcp.vertex_ai",
    "google_vertexai": "gcp.vertex_ai",
    "vertex.anthropic": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "gcp.vertex.agent": "gcp.gemini",
    "google-anthropic-vertex": "gcp.vertex_ai",
    "xai": "x_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "watsonx": "ibm.watsonx.ai",
    "fireworks_ai": "fireworks",
    "together_ai": "together",
    "hosted_vllm": "vllm",
    # frameworks and gateways, which are nobody's provider
    "langchain": None,
    "langgraph": None,
    "litellm": None,
    "litellm_proxy": None,
    "strands-agents": None,
    "crewai": None,
    "llamaindex": None,
    "unknown": None,
    "none": None,
}

OPERATION_SUFFIX: Final = r"\.(?:chat|responses|messages|completion|completions|embedding|textembedding|image)$"
"""What the AI SDK of Vercel puts behind a provider's name."""

SERVED_BY: Final[Mapping[str, str]] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt-llm": "tensorrt-llm",
    "ollama": "ollama",
    "llamacpp": "llama.cpp",
}
"""Providers that are an engine."""

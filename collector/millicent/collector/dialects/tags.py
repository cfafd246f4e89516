"""Where attribution stands: column of the record → attributes that carry it, nearest to the call first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ATTRIBUTION: Final[Mapping[str, tuple[str, ...]]] = {
    "team": (
        "millicent.team",
        "metadata.user_api_key_team_alias",
        "metadata.user_api_key_team_id",
        "resource:millicent.team",
        "resource:team",
        "resource:service.namespace",
    ),
    "project": (
        "millicent.project",
        "metadata.user_api_key_project_alias",
        "metadata.user_api_key_project_id",
        "resource:millicent.project",
        "resource:openinference.project.name",
    ),
    "feature": (
        "millicent.feature",
        "gen_ai.agent.name",
        "traceloop.workflow.name",
        "gen_ai.workflow.name",
        "ai.telemetry.functionId",
        "agent.name",
        "skill.name",
        "langfuse.trace.name",
        "resource:millicent.feature",
    ),
    "customer": (
        "millicent.customer",
        "traceloop.association.properties.customer_id",
        "traceloop.association.properties.customer",
        "ai.telemetry.metadata.customerId",
        "langfuse.trace.metadata.customer",
        "resource:millicent.customer",
    ),
    "user_id": (
        "user.id",
        "enduser.id",
        "traceloop.association.properties.user_id",
        "langfuse.user.id",
        "ai.telemetry.metadata.userId",
        "metadata.user_api_key_end_user_id",
        "metadata.user_api_key_user_id",
        "llm.user",
        "user.email",
    ),
    "session_id": (
        "session.id",
        "gen_ai.conversation.id",
        "traceloop.association.properties.session_id",
        "langfuse.session.id",
        "ai.telemetry.metadata.sessionId",
    ),
    "environment": (
        "millicent.environment",
        "langfuse.environment",
        "resource:millicent.environment",
        "resource:deployment.environment.name",
        "resource:deployment.environment",
    ),
    "service": ("resource:service.name",),
    "deployment": ("millicent.deployment", "resource:millicent.deployment"),
    "engine": ("millicent.engine", "resource:millicent.engine"),
    "accelerator": ("millicent.accelerator", "resource:millicent.accelerator"),
    "accelerator_count": ("millicent.accelerator_count", "resource:millicent.accelerator_count"),
    "precision": ("millicent.precision", "resource:millicent.precision"),
    "region": ("millicent.region", "resource:millicent.region", "resource:cloud.region"),
}
"""`resource:` in front of a key reads it from the resource."""

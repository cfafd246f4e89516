from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from millicent.sdk import faults
from millicent.sdk.attribution import Tags, carried, typed


class TokenSpanProcessor(SpanProcessor):
    """Stamps the tags of `attribution` and `track_tokens` onto spans of any instrumentation.

    Add it to the app's own `TracerProvider`; `instrument()` does so by itself. A tag already on the span wins
    over baggage, baggage over `defaults`.
    """

    def __init__(self, defaults: Tags | None = None) -> None:
        """Remember what to stamp.

        Args:
            defaults: Attribute key → value, stamped where neither span nor baggage says otherwise.
        """
        self.defaults = typed(defaults or {})

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp a span at its start. Never raises."""
        try:
            tags = self.defaults | carried(parent_context)
            if tags:
                present = span.attributes or {}
                span.set_attributes({key: value for key, value in tags.items() if key not in present})
        except Exception as error:  # noqa: BLE001  # a processor must not break the app's tracing
            faults.note(error)

"""Queries as OpenTelemetry spans, where the environment names a collector.

A query's spans are made when it has ended, from what was noted of it: while it runs it knows
nothing of them, and they can neither slow nor fail it. Without such an environment nothing of
OpenTelemetry is imported. Left out: figures and logs by OTLP (Prometheus reads the gateway's), and
passing a trace on to the models' endpoints.
"""

import os
from typing import TYPE_CHECKING, Final

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Pool

if TYPE_CHECKING:
    from r2reasoner.telemetry.spans import Spans

CONTENT_ENV: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL: Final = "http/protobuf"
INSTALL: Final = "OpenTelemetry needs more packages: pip install 'r2reasoner[otel]'"


def open_spans(pool: Pool) -> "Spans | None":
    """Return what sends spans to the collector that OpenTelemetry's variables name, if they do.

    None where they name none, or turn it off. Raises ConfigError for an exporter or protocol
    other than OTLP over HTTP, and where packages are missing.
    """
    if not _is_on():
        return None
    protocol = next(filter(None, map(_variable, PROTOCOLS)), PROTOCOL)
    if protocol != PROTOCOL:
        raise ConfigError(f"{PROTOCOLS[1]}: spans leave by {PROTOCOL}, not by {protocol!r}")
    try:
        from r2reasoner.telemetry.spans import Spans
    except ModuleNotFoundError as error:
        raise ConfigError(f"{INSTALL} ({error.name} is missing)") from None
    content = _variable(CONTENT_ENV).lower() in ("true", "span_only", "span_and_event")
    return Spans.to_collector(pool, content=content)


def _is_on() -> bool:
    """Tell whether there is a collector; to name the exporter alone means one on this machine."""
    if _variable("OTEL_SDK_DISABLED").lower() == "true":
        return False
    exporter = _variable("OTEL_TRACES_EXPORTER").lower()
    if exporter not in ("", "otlp", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER: expected otlp or none, got {exporter!r}")
    return exporter == "otlp" or (exporter == "" and any(map(_variable, ENDPOINTS)))


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()

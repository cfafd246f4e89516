"""The receiver as a command: `python -m millicent.collector`. Light on purpose: no engine, no frames, no pages."""

from __future__ import annotations

import argparse
import base64
import binascii
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from millicent.collector.receiver import Authenticate, Principal, Receiver
from millicent.collector.serve import serve
from millicent.collector.spool import Spool, SpoolError
from millicent.collector.telemetry import Telemetry
from millicent.warehouse.control import DEFAULT_TENANT, Control

LOCK_WAIT_S: Final = 5.0  # for a writer that is just ending
REMEMBER_S: Final = 2.0
REMEMBER_MOST: Final = 1024
EVERYBODY: Final = Principal(DEFAULT_TENANT, "insecure-local", frozenset({"ingest", "read"}))


def by_key(control: Control) -> Authenticate:
    """Let in whoever brings a live ingest or read key; a revoked one works for two seconds more."""
    known: dict[str, tuple[float, Principal | None]] = {}

    def authenticate(headers: Mapping[str, str]) -> Principal | None:
        credential = presented(headers)
        if credential is None:
            return None
        now = time.monotonic()
        until, principal = known.get(credential, (0.0, None))
        if now >= until:
            key = control.check(credential, "ingest", "read")
            principal = Principal(key.tenant, key.id, frozenset({key.scope})) if key else None  # type: ignore[arg-type]
            if len(known) >= REMEMBER_MOST:
                known.clear()
            known[credential] = (now + REMEMBER_S, principal)
        return principal

    return authenticate


def presented(headers: Mapping[str, str]) -> str | None:
    """The key in `authorization`: after `Bearer`, or as the password of `Basic`, whatever the user is called."""
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credential.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credential.strip(), validate=True).decode().partition(":")[2].strip()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def main() -> None:
    """Receive until told to stop or the parent is gone."""
    parser = argparse.ArgumentParser(prog="python -m millicent.collector", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the spool and the keys")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=4318, help="port for OTLP over HTTP")
    parser.add_argument("--grpc-port", type=int, default=4317, help="port for OTLP over gRPC")
    parser.add_argument("--insecure-local", action="store_true", help="take requests without a key")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input closes")
    told = parser.parse_args()
    authenticate: Authenticate = by_key(Control(told.data))
    if told.insecure_local:
        authenticate = lambda _: EVERYBODY  # noqa: E731 - the simplest of the two
    try:
        telemetry = Telemetry()
        with Spool(told.data / "spool", lock_wait_s=LOCK_WAIT_S, on_commit=telemetry.synced) as spool:
            app = Receiver(spool, authenticate, telemetry)
            parent = 0 if told.with_parent else None
            serve(app, host=told.host, port=told.port, grpc_port=told.grpc_port, parent=parent)
    except (SpoolError, OSError) as error:
        sys.exit(f"millicent receiver: {error}")


if __name__ == "__main__":
    main()

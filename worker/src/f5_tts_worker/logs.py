"""Structured log lines: one JSON object a line, on standard error."""

from __future__ import annotations

import json
import sys
import threading
from datetime import datetime, timezone

_whole_lines = threading.Lock()


def say(event: str, **fields: object) -> None:
    """Write what happened, and when, in UTC. Fields are never secrets: see ``settings.Secret``."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False, default=str)
    with _whole_lines:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

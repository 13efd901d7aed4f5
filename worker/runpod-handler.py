"""What the container runs: make everything ready, then serve RunPod's jobs."""

from __future__ import annotations

from f5_tts_worker.starting import initialize_models

if __name__ == "__main__":
    started = initialize_models()

    # Not earlier: what it imports may be in preheat's layers.
    from f5_tts_worker.serving import serve

    serve(started)

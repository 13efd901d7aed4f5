"""The worker, run as the platform runs it."""

"""Measurements of preheat beside what it replaces, taken side by side in one run."""

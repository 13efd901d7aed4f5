"""Real imports in fresh interpreters, and the verdicts that spare them the next time."""

"""The tests of preheat."""

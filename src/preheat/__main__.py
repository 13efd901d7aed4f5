"""``python -m preheat``."""

from preheat.cli import main

main()

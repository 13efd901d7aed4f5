"""``python -m preheat``."""

import sys

# Before anything else is imported: preheat may be installed in the platform itself.
sys.dont_write_bytecode = True

from preheat.cli.main import main

main()

"""Floor 3: one module for each outside thing: the interpreter, the engine, the index, the disk."""

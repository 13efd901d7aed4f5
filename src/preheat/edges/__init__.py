"""One package for each outside thing: disk, processes, platform, index, engine, store."""

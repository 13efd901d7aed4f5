"""Pure decisions. Same values in, same values out; no file, clock, process or network."""

"""The package index, read by HTTP: pages, and wheels' directories by range."""

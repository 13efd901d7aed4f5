"""uv: resolves, downloads, unpacks and links."""

"""The manifest's file: read, checked, edited."""

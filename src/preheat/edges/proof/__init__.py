"""The fresh interpreter that imports what is promised."""

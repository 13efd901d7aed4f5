"""One command's work each; nothing is printed here."""

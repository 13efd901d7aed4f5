"""What the doctor concludes from what it has seen."""

"""What the worker's tests run it with."""

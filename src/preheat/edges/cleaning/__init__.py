"""What can be freed: caches, leftovers, and layers that nobody uses."""

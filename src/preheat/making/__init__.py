"""From a plan to layers: fetched, installed, proved, published, reported."""

"""Two layers become a chip set: aligned windows, a split that does not leak, an index."""

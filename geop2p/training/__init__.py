"""A chip set becomes a translator."""

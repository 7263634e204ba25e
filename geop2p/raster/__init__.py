"""Pixels on the ground: grids, aligned reading, atomic writing, encodings. Imports no torch."""

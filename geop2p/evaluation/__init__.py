"""How good a translator or a mosaic is, in figures and on a page."""

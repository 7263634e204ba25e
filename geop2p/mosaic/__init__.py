"""A translator and a raster of any size become one raster without seams."""

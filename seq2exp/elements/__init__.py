"""Element maps: masks in genome coordinates, called elements, exports and comparisons."""

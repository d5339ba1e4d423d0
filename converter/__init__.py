"""Wardwatch's converter: labelled captures in, a quantised and proved bundle out. Offline only."""

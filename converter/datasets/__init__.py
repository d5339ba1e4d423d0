"""Loaders: one file per data set or capture layout."""

"""Columns to windowed features, one file per schema; state is bounded, sums are exact."""

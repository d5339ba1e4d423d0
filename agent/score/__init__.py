"""Feature matrix to verdicts; each verdict carries the facts behind it."""

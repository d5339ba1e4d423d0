"""Verdicts to findings with a life; no payload byte and no raw name gets in."""

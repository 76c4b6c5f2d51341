"""Recorded outcomes: every answer ever paid for, kept, judged, and never paid for twice."""

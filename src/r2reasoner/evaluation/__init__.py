"""Strategies compared on items: run, rows, figures with intervals, forecast, provenance."""

"""Prometheus metrics of the Python processes: one address for each, with everything behind it."""

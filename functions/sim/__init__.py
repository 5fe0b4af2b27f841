"""Simulations: which deployment meets the service levels, and what it costs."""

"""Exact fidelity: a peer's own models, controllers and rates, stepped by one compiled loop."""

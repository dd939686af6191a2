"""Answers about a spec or a model before it runs: plan, cost, graph, data, taps, parameters."""

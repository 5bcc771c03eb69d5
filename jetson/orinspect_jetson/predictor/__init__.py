"""Latency, energy and memory of a network on a Jetson Orin that nobody has to own yet: see docs/predictor.md."""

"""Measure a deployment: load scenarios, stages, cold start, sweeps, and the machine that all of it ran on."""

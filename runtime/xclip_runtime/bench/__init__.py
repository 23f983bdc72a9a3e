"""Benchmarks of a deployment: load scenarios, stages, cold start, sweeps, and a record of the machine."""

"""Deployments beyond one process: Ray and Triton."""

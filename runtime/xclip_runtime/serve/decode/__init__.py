"""Decoding of uploads in worker processes."""

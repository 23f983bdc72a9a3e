"""Measurement of every engine, precision and thread setting that a machine and a bundle have."""

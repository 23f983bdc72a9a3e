"""Utilities of every package: atomic files, CPUs, deadlines, paths, prefetching."""

"""What every package may use: CPUs, threads, paths, files."""

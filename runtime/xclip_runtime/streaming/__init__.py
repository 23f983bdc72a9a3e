"""Live sources, windows of their frames, and events."""

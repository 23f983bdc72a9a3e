"""Makers of bundles, checkpoints, clips, cameras and servers that several test packages share."""

"""Bulk runs and a Ray Serve deployment on a Ray cluster (extra [ray]).

Neither imports the other: bulk runs need no Ray Serve.
"""

"""Accuracy on labelled videos, by the published protocol."""

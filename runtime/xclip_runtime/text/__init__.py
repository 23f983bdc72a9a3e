"""Label sets and the text encoder."""

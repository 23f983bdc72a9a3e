"""HTTP API (/v1) and its WebSocket."""

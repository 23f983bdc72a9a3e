"""The embedded model `motion-demo`: a small X-CLIP trained on synthetic clips of moving shapes."""

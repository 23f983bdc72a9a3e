"""Ray and Triton."""

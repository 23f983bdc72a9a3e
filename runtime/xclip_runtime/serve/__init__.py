"""HTTP: one process serves a bundle; videos are decoded in processes of their own, which can be killed.

    request ──upload──▶ temporary file ──worker─▶ frames ──batcher─▶ features ──prompt─▶ answer

Importing this package loads nothing; `server.serve` is where it begins.
"""

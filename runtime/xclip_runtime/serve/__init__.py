"""HTTP and gRPC server of one or several bundles; videos are decoded in worker processes that can be killed.

    request ──upload──▶ temporary file ──worker─▶ frames ──batcher─▶ features ──prompt─▶ response

The entry point is `xclip_runtime.serve.server.Server`; importing this package alone loads nothing.
"""

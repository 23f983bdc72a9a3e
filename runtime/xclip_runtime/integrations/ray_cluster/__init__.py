"""Bulk runs and a Ray Serve deployment on a Ray cluster (extra [ray])."""

from xclip_runtime.integrations.ray_cluster.bulk import BulkReport, run_bulk
from xclip_runtime.integrations.ray_cluster.deployment import xclip_deployment

__all__ = ["BulkReport", "run_bulk", "xclip_deployment"]

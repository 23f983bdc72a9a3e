"""More than one process, more than one machine: bulk runs and a served deployment on Ray (extra [ray])."""

from xclip_runtime.integrations.ray_cluster.bulk import BulkReport, run_bulk
from xclip_runtime.integrations.ray_cluster.deployment import xclip_deployment

__all__ = ["BulkReport", "run_bulk", "xclip_deployment"]

"""A Ray cluster of this machine, with room for two workers.

This folder is not called ray: tests/runtime is on the path, and `import ray` would find it where Ray is missing.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def cluster():
    ray = pytest.importorskip("ray", reason="Ray is large, and not in the extra [dev]: pip install 'xclip-onnx[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers find this package where the tests do.
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield ray
        ray.shutdown()

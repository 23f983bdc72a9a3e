"""Model repositories for Triton Inference Server and OpenVINO Model Server (extra [triton])."""

from xclip_runtime.integrations.triton_repository.repository import ModelRepository, export_repository

__all__ = ["ModelRepository", "export_repository"]

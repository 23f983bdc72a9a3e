"""Model repositories for Triton Inference Server and OpenVINO Model Server (extra [triton])."""

from xclip_runtime.integrations.triton_repository.repository import Repository, export_repository

__all__ = ["Repository", "export_repository"]

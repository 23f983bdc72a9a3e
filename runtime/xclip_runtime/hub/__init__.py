"""Model hub: repositories whose files are downloaded, when they are used, to the hub client's own cache."""

from xclip_runtime.hub.repository import (
    DOWNLOADING,
    HubFile,
    Repository,
    at_revision,
    is_lfs_pointer,
    parse_name,
    write_to_hub,
)

__all__ = ["DOWNLOADING", "HubFile", "Repository", "at_revision", "is_lfs_pointer", "parse_name", "write_to_hub"]

"""Text search in videos: an index of features, exact scores, retrieval metrics, contact sheets. Extra [index]."""

from xclip_runtime.search.contact_sheet import contact_sheet
from xclip_runtime.search.video_index import Added, Hit, SearchResult, VideoIndex

__all__ = ["Added", "Hit", "SearchResult", "VideoIndex", "contact_sheet"]

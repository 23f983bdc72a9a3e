"""Videos found by words: a database of video features, exact search, moments, figures. Extra [index]."""

from xclip_runtime.search.contact_sheet import contact_sheet
from xclip_runtime.search.video_index import Added, Hit, SearchResult, VideoIndex

__all__ = ["Added", "Hit", "SearchResult", "VideoIndex", "contact_sheet"]

"""/v1/media: the videos of search hits, for players, which cannot send a key."""

from __future__ import annotations

import asyncio
import mimetypes
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

if TYPE_CHECKING:
    from xclip_runtime.serve.hit_media import HitMedia


def router(hit_media: HitMedia) -> APIRouter:
    """Return the route of /v1/media."""
    routes = APIRouter(prefix="/v1")

    # Not in the OpenAPI document: its paths are those that hits name.
    @routes.get("/media/{token}", include_in_schema=False)
    async def media(token: str) -> FileResponse:
        """Play the video of a search hit; ranges of bytes are supported."""
        video = await asyncio.to_thread(hit_media.video, token)
        if video is None:
            raise HTTPException(404, "no such video: search again")
        kind = mimetypes.guess_type(video.name)[0] or ""
        headers = {"Cache-Control": "private", "X-Content-Type-Options": "nosniff"}
        return FileResponse(video, media_type=kind if kind.startswith("video/") else "video/mp4", headers=headers)

    return routes

"""/v1/search: text queries on the server's index."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, HTTPException, Query, Request

from xclip_runtime.errors import VideoError
from xclip_runtime.search.contact_sheet import hit_frames
from xclip_runtime.serve.api.openapi import errors, example
from xclip_runtime.serve.api.schemas import HitResponse, SearchOptions, SearchResponse
from xclip_runtime.serve.request import admit
from xclip_runtime.serve.served_model import gather
from xclip_runtime.serve.thumbnails import data_url

if TYPE_CHECKING:
    from xclip_runtime.search.video_index import Hit, SearchResult
    from xclip_runtime.serve.engine import Engine


_SEARCH = "curl -f 'http://127.0.0.1:8000/v1/search?text=a+red+square+rotating&top_k=3'"


def router(engine: Engine) -> APIRouter:
    """Return the route of /v1/search, on the index of the default model."""
    routes = APIRouter(prefix="/v1")
    # The index is used by one thread at a time.
    thread = ThreadPoolExecutor(1, "xclip-search")

    @routes.get("/search", openapi_extra=example(_SEARCH), responses=errors(400, 404, 422, 501, 503, 504))
    async def search(request: Request, query: Annotated[SearchOptions, Query()]) -> SearchResponse:
        """Search the index for windows that a text describes."""
        async with admit(engine, request) as admitted:
            return await admitted.while_connected(run(query))

    async def run(query: SearchOptions) -> SearchResponse:
        with engine.registry.use() as served:
            if served.index is None:
                raise HTTPException(404, "the server has no index: start it with --index FOLDER")
            served.texts.check([query.text])
            call = partial(served.index.search, query.text, query.top_k)
            result: SearchResult = await asyncio.get_running_loop().run_in_executor(thread, call)
        hits = await gather(to_response(hit, query.thumbnails) for hit in result.hits)
        return SearchResponse(**{**vars(result), "hits": tuple(hits)})

    async def to_response(hit: Hit, thumbnails: int) -> HitResponse:
        images = await asyncio.to_thread(_thumbnails, hit, thumbnails) if thumbnails else []
        # Clients must not learn the server's folders.
        hidden = {"video": Path(hit.video).name, "media": engine.hit_media.path_of(hit.video)}
        return HitResponse(**{**vars(hit), **hidden}, thumbnails=tuple(images))

    return routes


def _thumbnails(hit: Hit, count: int) -> list[str]:
    try:
        return [data_url(frame) for frame in hit_frames(hit, count)]
    except VideoError:
        # The file has been moved or deleted since it was indexed; the hit itself is still valid.
        return []

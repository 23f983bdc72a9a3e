"""/v1/search: words in, moments of an index out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request

from xclip_runtime.errors import LabelsError, VideoError
from xclip_runtime.search.contact_sheet import hit_frames
from xclip_runtime.serve.api import schemas
from xclip_runtime.serve.api.schemas import SearchOptions  # noqa: TC001 - FastAPI reads the annotations
from xclip_runtime.serve.request import admitted
from xclip_runtime.serve.thumbnails import data_url

if TYPE_CHECKING:
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.search.video_index import Hit, SearchResult
    from xclip_runtime.serve.engine import Engine


def router(engine: Engine, index: VideoIndex) -> APIRouter:
    """The route of /v1/search."""
    routes = APIRouter(prefix="/v1")
    # The database is used by one thread at a time.
    thread = ThreadPoolExecutor(1, "xclip-search")

    @routes.get("/search")
    async def search(request: Request, query: Annotated[SearchOptions, Query()]) -> schemas.Found:
        """The moments of the index that a text describes best."""
        longest = engine.settings.limits.text_length
        if len(query.text) > longest:
            message = f"the text has {len(query.text)} characters, this server takes {longest}: shorten it"
            raise LabelsError(message)
        async with admitted(engine, request) as visit:
            return await visit.while_connected(find(query))

    async def find(query: SearchOptions) -> schemas.Found:
        ask = partial(index.search, query.text, query.k)
        result: SearchResult = await asyncio.get_running_loop().run_in_executor(thread, ask)
        moments = await engine.together(moment(hit, query.thumbnails) for hit in result.hits)
        counts = {"windows": result.windows, "scored": result.scored}
        return schemas.Found(moments=moments, timings_ms=result.timings_ms, **counts)

    async def moment(hit: Hit, thumbnails: int) -> schemas.Moment:
        images = await asyncio.to_thread(_images, hit, thumbnails) if thumbnails else []
        # Where the files lie is none of the client's business.
        name = Path(hit.video).name
        return schemas.Moment(
            video=name, start=hit.start, end=hit.end, logit=hit.logit, cosine=hit.cosine, thumbnails=images
        )

    return routes


def _images(hit: Hit, count: int) -> list[str]:
    try:
        return [data_url(frame) for frame in hit_frames(hit, count)]
    except VideoError:
        # It has been moved or deleted since it was indexed; the moment itself is still an answer.
        return []

"""/v1: a video and words in, JSON out."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request

from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.inference.scoring import best_labels, softmax
from xclip_runtime.serve.api import schemas
from xclip_runtime.serve.api.schemas import ClassifyOptions, EmbedOptions, ErrorAnswer, ScoreOptions, VideoOptions
from xclip_runtime.serve.request import uploaded
from xclip_runtime.serve.thumbnails import data_url
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xclip_runtime.serve.engine import Engine, Seen
    from xclip_runtime.serve.request import Visit
    from xclip_runtime.serve.uploads import Upload

Options = TypeVar("Options", bound=VideoOptions)
Result = TypeVar("Result")

SAMPLE = "/page/sample.mp4"


_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "A video as it is, or a form with the file and any of the options, or options as JSON with the "
        "`clip` of a video that was kept.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"video": {"type": "string", "format": "binary"}},
                    "additionalProperties": True,
                }
            },
            "video/*": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": {"type": "object"}, "example": {"clip": "…", "texts": ["a dog running"]}},
        },
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "The body cannot be parsed.",
        401: "A key is needed.",
        404: "The kept clip is gone.",
        413: "The body is too large.",
        422: "The video or an option cannot be used.",
        501: "Other labels need the extra [text] and a bundle with a text tower.",
        502: "The process that decoded this file died.",
        503: "Too many requests; Retry-After says when to come again.",
        504: "The deadline is over.",
    }.items()
}


def router(engine: Engine) -> APIRouter:
    """The routes of /v1."""
    routes = APIRouter(prefix="/v1")

    async def handle(
        request: Request, query: Options, answer: Callable[[Visit, Upload, Options], Awaitable[Result]]
    ) -> Result:
        async with uploaded(engine, request) as (visit, upload):
            # What is in the body counts over what is in the address.
            options = type(query).model_validate({**query.model_dump(exclude_unset=True), **upload.fields})

            async def work() -> Result:
                return await answer(visit, upload, options)

            return await visit.while_connected(work())

    async def classified(visit: Visit, upload: Upload, options: ClassifyOptions) -> schemas.Classification:
        upload_ms = visit.elapsed_ms
        labels = await engine.labels(options.labels, options.texts)
        seen = await _see(engine, upload, options, Views.parse(options.views))
        logits, prompt_ms = await engine.score(seen, labels)
        best = best_labels(labels.names, softmax(logits).mean(axis=0), logits.mean(axis=0), options.top_k)
        return schemas.Classification(
            labels=[schemas.LabelScore(label=s.label, prob=s.prob, logit=s.logit) for s in best],
            **await _facts(engine, upload, options, seen, _timings(visit, options, seen, upload_ms, prompt_ms)),
        )

    async def embedded(visit: Visit, upload: Upload, options: EmbedOptions) -> schemas.Embedding:
        upload_ms = visit.elapsed_ms
        seen = await _see(engine, upload, options, Views())
        return schemas.Embedding(
            embedding=seen.features[0].unit_embeds.tolist(),
            **await _facts(engine, upload, options, seen, _timings(visit, options, seen, upload_ms)),
        )

    async def scored(visit: Visit, upload: Upload, options: ScoreOptions) -> schemas.Scores:
        upload_ms = visit.elapsed_ms
        labels = await engine.labels((), options.texts)
        seen = await _see(engine, upload, options, Views())
        logits, prompt_ms = await engine.score(seen, labels)
        pairs = zip(labels.names, softmax(logits)[0].tolist(), logits[0].tolist(), strict=True)
        return schemas.Scores(
            scores=[schemas.TextScore(text=text, prob=prob, logit=logit) for text, prob, logit in pairs],
            **await _facts(engine, upload, options, seen, _timings(visit, options, seen, upload_ms, prompt_ms)),
        )

    @routes.post("/classify", openapi_extra=_BODY, responses=_ERRORS)
    async def classify(request: Request, query: Annotated[ClassifyOptions, Query()]) -> schemas.Classification:
        """Say what happens in a video, with the bundle's labels or others."""
        return await handle(request, query, classified)

    @routes.post("/score", openapi_extra=_BODY, responses=_ERRORS)
    async def score(request: Request, query: Annotated[ScoreOptions, Query()]) -> schemas.Scores:
        """Score any texts against a video, in the order in which they are given."""
        return await handle(request, query, scored)

    @routes.post("/embed", openapi_extra=_BODY, responses=_ERRORS)
    async def embed(request: Request, query: Annotated[EmbedOptions, Query()]) -> schemas.Embedding:
        """The embedding of a video, of unit length."""
        return await handle(request, query, embedded)

    @routes.get("/info")
    async def info() -> schemas.ServerInfo:
        """What is served: the bundle, its labels, the limits."""
        model, limits = engine.model, engine.settings.limits
        return schemas.ServerInfo(
            bundle=model.bundle.path.resolve().name,
            provider=model.provider,
            precision=model.precision,
            num_frames=model.bundle.num_frames,
            labels=list(model.bundle.labels.names),
            free_text=bool(model.bundle.graphs_of("text")) and find_spec("tokenizers") is not None,
            upload_bytes=limits.upload_bytes,
            duration=limits.duration,
            sample=sample(engine),
            indexed=engine.indexed,
        )

    return routes


def sample(engine: Engine) -> str | None:
    """Where the sample video is: only for the embedded bundle, since no other knows what it shows."""
    return SAMPLE if engine.model.bundle.path.resolve() == DEMO_BUNDLE.resolve() else None


async def _see(engine: Engine, upload: Upload, options: VideoOptions, views: Views) -> Seen:
    if options.clip is not None:
        seen = engine.kept(options.clip)
        if seen is None:
            raise HTTPException(404, "that clip is no longer kept: send the video again")
        return seen
    if upload.path is None:
        raise HTTPException(422, "there is no video: send one as the body, as a file of a form, or name a kept `clip`")
    most = engine.settings.limits.views
    if len(views) > most:
        raise HTTPException(422, f"{len(views)} views are too many: this server takes {most}")
    return await engine.see(upload.path, upload.name, views=views, start=options.start, end=options.end)


async def _facts(
    engine: Engine, upload: Upload, options: VideoOptions, seen: Seen, timings: schemas.Timings
) -> dict[str, Any]:
    """What every answer says."""
    thumbnails = await _thumbnails(seen, options.thumbnails)
    return {
        "video": None if upload.path is None else upload.name,
        "frames": schemas.FrameUse(**asdict(seen.frames)),
        "provider": engine.model.provider,
        "precision": engine.model.precision,
        "clip": options.clip or (engine.keep(seen) if options.keep else None),
        "thumbnails": thumbnails,
        "timings_ms": timings,
    }


def _timings(
    visit: Visit, options: VideoOptions, seen: Seen, upload_ms: float, prompt_ms: float = 0.0
) -> schemas.Timings:
    stages = dict.fromkeys(seen.timings_ms, 0.0) if options.clip else seen.timings_ms
    return schemas.Timings(upload=upload_ms, prompt=prompt_ms, total=visit.elapsed_ms, **stages)


async def _thumbnails(seen: Seen, count: int) -> list[schemas.Thumbnail]:
    squares = seen.squares
    if squares is None or count == 0:
        return []
    chosen = np.linspace(0, len(squares) - 1, min(count, len(squares))).round().astype(int).tolist()
    images = await asyncio.to_thread(lambda: [data_url(squares[place]) for place in chosen])
    indices = (seen.frames.indices[place] for place in chosen)
    return [schemas.Thumbnail(index=index, image=image) for index, image in zip(indices, images, strict=True)]

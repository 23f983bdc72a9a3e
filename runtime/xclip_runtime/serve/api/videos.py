"""/v1: classify, score and embed uploaded videos."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request

from xclip_runtime.inference.scoring import average_views, best_labels, text_scores
from xclip_runtime.serve.api.openapi import UPLOAD_ERRORS, errors, example, upload_body
from xclip_runtime.serve.api.schemas import (
    MODEL,
    ClassifyOptions,
    ClassifyResponse,
    EmbedOptions,
    EmbedResponse,
    RequestTimings,
    ScoreOptions,
    ScoreResponse,
    ServerInfo,
    Thumbnail,
    VideoOptions,
)
from xclip_runtime.serve.request import admit_upload
from xclip_runtime.serve.thumbnails import data_url
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xclip_runtime.inference.scoring import ViewScores
    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.request import AdmittedRequest
    from xclip_runtime.serve.served_model import EncodedVideo, ServedModel
    from xclip_runtime.serve.uploads import Upload

Options = TypeVar("Options", bound=VideoOptions)
Result = TypeVar("Result")

SAMPLE = "/page/sample.mp4"

_ADDRESS = "http://127.0.0.1:8000"
_CLASSIFY = f"curl -f --data-binary @ride.mp4 '{_ADDRESS}/v1/classify?top_k=3'"
_SCORE = f"curl -f -F video=@ride.mp4 -F texts='a red square rotating' -F texts='a cat asleep' {_ADDRESS}/v1/score"
_EMBED = f"curl -f --data-binary @ride.mp4 {_ADDRESS}/v1/embed"
_INFO = f"curl -f {_ADDRESS}/v1/info"


def router(engine: Engine) -> APIRouter:
    """Return the routes of /v1."""
    routes = APIRouter(prefix="/v1")

    async def handle(
        request: Request,
        query: Options,
        run: Callable[[ServedModel, AdmittedRequest, Upload, Options], Awaitable[Result]],
    ) -> Result:
        async with admit_upload(engine, request) as (admitted, upload):
            # Fields of the body override the query string.
            fields = {**query.model_dump(exclude_unset=True), **upload.fields}

            async def work() -> Result:
                # Off the event loop, as it takes longer the larger the body is.
                options = await asyncio.to_thread(type(query).model_validate, fields)
                with engine.registry.use(options.model) as served:
                    return await run(served, admitted, upload, options)

            return await admitted.while_connected(work())

    async def score_labels(
        served: ServedModel,
        admitted: AdmittedRequest,
        upload: Upload,
        options: ClassifyOptions | ScoreOptions,
        *,
        views: Views,
    ) -> tuple[tuple[str, ...], ViewScores, dict[str, Any]]:
        """Return the names and scores of the label set, and the fields that all responses have."""
        names = options.labels if isinstance(options, ClassifyOptions) else []
        # Texts are encoded last, once all that can be refused has been.
        source = _source(served, upload, options, views)
        await served.check_labels(names, options.texts)
        video = await _encode(served, source, upload.name, options, views)
        labels = await served.labels(names, options.texts)
        logits, prompt_ms = await served.score(video, labels)
        common = await _common(served, admitted, upload, options, video, prompt_ms=prompt_ms)
        return labels.names, average_views(logits), common

    async def run_classify(
        served: ServedModel, admitted: AdmittedRequest, upload: Upload, options: ClassifyOptions
    ) -> ClassifyResponse:
        views = Views.parse(options.views)
        names, scores, common = await score_labels(served, admitted, upload, options, views=views)
        return ClassifyResponse(labels=best_labels(names, *scores, options.top_k), **common)

    async def run_score(
        served: ServedModel, admitted: AdmittedRequest, upload: Upload, options: ScoreOptions
    ) -> ScoreResponse:
        names, scores, common = await score_labels(served, admitted, upload, options, views=Views())
        return ScoreResponse(texts=text_scores(names, *scores, served.model.bundle.logit_scale), **common)

    async def run_embed(
        served: ServedModel, admitted: AdmittedRequest, upload: Upload, options: EmbedOptions
    ) -> EmbedResponse:
        source = _source(served, upload, options, Views())
        video = await _encode(served, source, upload.name, options, Views())
        return EmbedResponse(
            embedding=video.features[0].unit_embeds.tolist(),
            **await _common(served, admitted, upload, options, video),
        )

    @routes.post("/classify", openapi_extra=upload_body(ClassifyOptions, _CLASSIFY), responses=UPLOAD_ERRORS)
    async def classify(request: Request, query: Annotated[ClassifyOptions, Query()]) -> ClassifyResponse:
        """Classify a video with the bundle's label set or another."""
        return await handle(request, query, run_classify)

    @routes.post("/score", openapi_extra=upload_body(ScoreOptions, _SCORE), responses=UPLOAD_ERRORS)
    async def score(request: Request, query: Annotated[ScoreOptions, Query()]) -> ScoreResponse:
        """Score texts against a video, in the order given."""
        return await handle(request, query, run_score)

    @routes.post("/embed", openapi_extra=upload_body(EmbedOptions, _EMBED), responses=UPLOAD_ERRORS)
    async def embed(request: Request, query: Annotated[EmbedOptions, Query()]) -> EmbedResponse:
        """Embed a video as a vector of unit length."""
        return await handle(request, query, run_embed)

    @routes.get("/info", openapi_extra=example(_INFO), responses=errors(404, 422))
    async def info(name: Annotated[str | None, Query(alias="model", description=MODEL)] = None) -> ServerInfo:
        """Model, label set and limits of this server."""
        served, limits = engine.registry.get(name), engine.settings.limits
        model = served.model
        return ServerInfo(
            model=served.name,
            models=list(engine.registry.names),
            bundle=model.bundle.path.resolve().name,
            checkpoint=model.bundle.checkpoint_name,
            logit_scale=model.bundle.logit_scale,
            **model.ran,
            num_frames=model.bundle.num_frames,
            labels=list(model.bundle.labels.names),
            free_text=bool(model.bundle.graphs_of("text")) and find_spec("tokenizers") is not None,
            upload_bytes=limits.upload,
            duration=limits.duration,
            max_views=limits.views,
            sample=SAMPLE,
            indexed=served.indexed,
        )

    return routes


def _source(served: ServedModel, upload: Upload, options: VideoOptions, views: Views) -> EncodedVideo | Path:
    """Return the kept video, or the file of the upload; refuse what can be refused without work."""
    limit = served.settings.limits.views
    if len(views) > limit:
        raise HTTPException(422, f"{len(views)} views exceed the limit of {limit}: send fewer")
    if options.token is not None:
        video = served.kept(options.token)
        if video is None:
            raise HTTPException(404, "the kept video has been dropped: send it again")
        return video
    if upload.path is None:
        raise HTTPException(422, "no video: send one as the body or as a file of a form, or name a kept `clip`")
    return upload.path


async def _encode(
    served: ServedModel, source: EncodedVideo | Path, name: str, options: VideoOptions, views: Views
) -> EncodedVideo:
    if isinstance(source, Path):
        return await served.encode(source, name, views=views, start=options.start, end=options.end, track=options.track)
    return source


async def _common(
    served: ServedModel,
    admitted: AdmittedRequest,
    upload: Upload,
    options: VideoOptions,
    video: EncodedVideo,
    *,
    prompt_ms: float = 0.0,
) -> dict[str, Any]:
    """Return the fields that all responses have."""
    stages = dict.fromkeys(video.timings_ms, 0.0) if options.token else video.timings_ms
    timings = RequestTimings(upload=admitted.upload_ms, prompt=prompt_ms, total=admitted.elapsed_ms, **stages)
    return {
        "video": None if upload.path is None else upload.name,
        "frames": video.frames,
        **served.model.ran,
        "token": options.token or (served.keep(video) if options.keep else None),
        "thumbnails": await _thumbnails(video, options.thumbnails),
        "timings_ms": timings,
    }


async def _thumbnails(video: EncodedVideo, count: int) -> tuple[Thumbnail, ...]:
    pixels = video.pixels
    if pixels is None or count == 0:
        return ()
    chosen = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).round().astype(int).tolist()
    images = await asyncio.to_thread(lambda: [data_url(pixels[i]) for i in chosen])
    return tuple(Thumbnail(video.frames.indices[i], image) for i, image in zip(chosen, images, strict=True))

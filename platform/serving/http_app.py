"""The HTTP side of a policy service: four routes, and one sentence for every request that is refused."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from oneiros.platform.serving.batching import Batcher
from oneiros.platform.serving.observation_json import largest
from oneiros.platform.serving.refusals import BadRequest, Refused, TooLarge
from oneiros.platform.serving.service import ActRequest, PolicyService

log = logging.getLogger(__name__)

SPARE_BYTES = 4_096
"""For what a request holds beside its observation."""


def build_app(service: PolicyService, most_in_batch: int = 64) -> FastAPI:
    """The ASGI app around ``service``."""
    app = FastAPI(title="Oneiros policy", description="POST /sessions, then POST /sessions/NAME/act for every step.")
    batcher: Batcher[ActRequest] = Batcher(service.act, most_in_batch)
    most_bytes = SPARE_BYTES + largest(service.policy.observation_space)

    @app.exception_handler(Refused)
    async def refuse(request: Request, refusal: Refused) -> JSONResponse:
        return JSONResponse({"error": f"{refusal}."}, refusal.status)

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return JSONResponse({"error": "the policy failed on this request; the server's log says how."}, 500)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether it answers."""
        return {"status": "ok"}

    @app.get("/policy")
    async def policy() -> dict[str, Any]:
        """What is served, the spaces, and how busy it is."""
        return service.describe()

    @app.post("/sessions", status_code=201)
    async def open_session() -> dict[str, Any]:
        """Begin a session: somebody whose recurrent state is kept."""
        return {"session": service.open(), "idle_seconds": service.sessions.idle_seconds}

    @app.post("/sessions/{session}/act")
    async def act(session: str, request: Request) -> dict[str, Any]:
        """Take ``{"observation": ..., "first": false, "mode": "eval"}`` and return ``{"action": ...}``."""
        return {"action": await batcher.submit(ActRequest.parse(session, await _body(request, most_bytes)))}

    @app.delete("/sessions/{session}", status_code=204)
    async def close_session(session: str) -> Response:
        """Forget a session."""
        service.close(session)
        return Response(status_code=204)

    return app


async def _body(request: Request, most_bytes: int) -> Any:
    """The body as JSON; raises ``TooLarge`` before more than ``most_bytes`` are read, and ``BadRequest``."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most_bytes:
            raise TooLarge(
                f"the body is larger than the {most_bytes} bytes that an observation of this policy can take"
            )
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error

"""REST: what goes through the appliance, and what operators do about it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lbfast.web.api_common import LONG_S, Operator, Reader, RealLabel, Refusal, Report, ServiceLabel, ask, problem
from lbfast.web.auth import state_of
from lbfast.web.client import ControlError, ControlUnavailable

ROUTER = APIRouter(tags=["traffic"])

Client = Annotated[str | None, Query(description="Only this client: an address or a network.", max_length=64)]


class Why(BaseModel):
    """Why an operator does it."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=500, description="For those who look later.")


class Drain(Why):
    """How a drain is to end; without a deadline as the virtual service says."""

    deadline: int | None = Field(default=None, ge=0, le=24 * 86_400, description="Seconds; then known clients move.")
    cut: bool | None = Field(default=None, description="At the deadline cut the connections that are left.")
    stagger: int | None = Field(default=None, ge=0, le=86_400, description="Seconds over which clients are moved.")


class Weight(BaseModel):
    """A weight."""

    model_config = ConfigDict(extra="forbid")

    weight: int = Field(ge=0, le=256, description="0 takes no new clients.")


class Pin(BaseModel):
    """A client that is bound to a real server."""

    model_config = ConfigDict(extra="forbid")

    client: str = Field(min_length=1, max_length=64, description="Its address.")
    real: str = Field(min_length=1, max_length=200, description="Label of the real server.")


@ROUTER.get("/overview")
async def overview(request: Request, who: Reader) -> Report:
    """All virtual services and their real servers: states, weights, connections, reasons."""
    return await ask(request, "overview", who)


@ROUTER.get("/statistics")
async def statistics(request: Request, who: Reader) -> Report:
    """The counters of workers, virtual services and real servers."""
    return await ask(request, "statistics", who)


@ROUTER.get("/certificates")
async def certificates(request: Request, who: Reader) -> Report:
    """The certificates of real servers that expire soon or differ within a service, as TLS health checks saw them."""
    return await ask(request, "certificates", who)


@ROUTER.get("/version")
async def version(request: Request, who: Reader) -> Report:
    """The running lbfast: version, pid, since when."""
    return await ask(request, "version", who)


@ROUTER.get("/services")
async def services(request: Request, who: Reader) -> list[Report]:
    """The virtual services as in the overview."""
    found: list[Report] = (await ask(request, "overview", who))["virtual_services"]
    return found


@ROUTER.get("/services/{service}")
async def service(request: Request, who: Reader, service: ServiceLabel) -> Report:
    """One virtual service as in the overview."""
    found = (await ask(request, "overview", who))["virtual_services"]
    for it in found:
        if it["label"] in (service, service.replace("%2F", "/").replace("%2f", "/")):
            report: Report = it
            return report
    raise Refusal(problem(404, f"there is no virtual service {service!r}", "no_such_service"))


@ROUTER.get("/services/{service}/connections")
async def connections(request: Request, who: Reader, service: ServiceLabel, client: Client = None) -> Report:
    """The open connections of a virtual service."""
    return await ask(request, "connections", who, service=service, client=client)


@ROUTER.get("/services/{service}/persistence")
async def persistence(
    request: Request,
    who: Reader,
    service: ServiceLabel,
    client: Client = None,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 1_000,
) -> Report:
    """Which client belongs to which real server."""
    return await ask(request, "persistence_show", who, service=service, client=client, limit=limit)


@ROUTER.delete("/services/{service}/persistence")
async def persistence_clear(
    request: Request,
    who: Operator,
    service: ServiceLabel,
    client: Client = None,
    real: Annotated[str | None, Query(description="Only clients of this real server.", max_length=200)] = None,
) -> Report:
    """Forget clients, so that they are placed anew; without client and real, all."""
    return await ask(request, "persistence_clear", who, service=service, client=client, real=real)


@ROUTER.post("/services/{service}/persistence")
async def persistence_pin(request: Request, who: Operator, service: ServiceLabel, pin: Pin) -> Report:
    """Bind a client to a real server until it is cleared."""
    return await ask(request, "persistence_pin", who, service=service, client=pin.client, real=pin.real)


@ROUTER.get("/services/{service}/explain/{client}")
async def explain(request: Request, who: Reader, service: ServiceLabel, client: str) -> Report:
    """Where a client goes, since when, and why."""
    return await ask(request, "explain", who, service=service, client=client)


@ROUTER.get("/services/{service}/reals/{real}/health")
async def health(request: Request, who: Reader, service: ServiceLabel, real: RealLabel) -> Report:
    """The last health checks of a real server, newest first."""
    return await ask(request, "health", who, service=service, real=real)


@ROUTER.post("/services/{service}/reals/{real}/health/test")
async def health_test(request: Request, who: Operator, service: ServiceLabel, real: RealLabel) -> Report:
    """Make one probe now, out of turn, and tell what it saw step by step; it does not count."""
    found: Report = await ask(request, "health_test", who, timeout=LONG_S, service=service, real=real)
    test: Report = found["tests"][0]
    return test


@ROUTER.post("/services/{service}/reals/{real}/drain")
async def drain(
    request: Request, who: Operator, service: ServiceLabel, real: RealLabel, end: Drain | None = None
) -> Report:
    """No new clients; known ones may return as the drain policy says."""
    return await ask(request, "drain", who, service=service, real=real, **(end or Drain()).model_dump())


@ROUTER.post("/services/{service}/reals/{real}/halt")
async def halt(
    request: Request, who: Operator, service: ServiceLabel, real: RealLabel, why: Why | None = None
) -> Report:
    """Takes nobody, open connections are cut."""
    return await ask(request, "halt", who, service=service, real=real, reason=why.reason if why else None)


@ROUTER.post("/services/{service}/reals/{real}/online")
async def online(
    request: Request, who: Operator, service: ServiceLabel, real: RealLabel, why: Why | None = None
) -> Report:
    """Back to work."""
    return await ask(request, "online", who, service=service, real=real, reason=why.reason if why else None)


@ROUTER.put("/services/{service}/reals/{real}/weight")
async def weight(request: Request, who: Operator, service: ServiceLabel, real: RealLabel, weight: Weight) -> Report:
    """The share of new clients, until it is set anew."""
    return await ask(request, "weight", who, service=service, real=real, weight=weight.weight)


@ROUTER.get("/events")
async def events(request: Request, who: Reader, limit: Annotated[int, Query(ge=0, le=1_000)] = 100) -> Report:
    """The newest events, oldest first."""
    return await ask(request, "events", who, limit=limit)


@ROUTER.get(
    "/events/stream",
    response_class=Response,
    responses={
        200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    },
)
async def event_stream(
    request: Request, who: Reader, limit: Annotated[int, Query(ge=0, le=1_000)] = 0
) -> StreamingResponse:
    """Events as they happen, as server-sent events; ``limit`` of the newest ones first."""
    await ask(request, "version", who)  # a refusal comes as a status, not in the middle of a stream
    return StreamingResponse(_feed(request, who.by, limit), media_type="text/event-stream")


async def _feed(request: Request, by: str, limit: int) -> AsyncIterator[bytes]:
    state = state_of(request)
    yield b"retry: 2000\n\n"
    try:
        async for event in state.client.stream("events", by, follow=True, limit=limit):
            yield f"event: {event['event']}\ndata: {json.dumps(event)}\n\n".encode()
            if state.stopping.is_set():
                return
    except (ControlError, ControlUnavailable) as error:
        data: dict[str, Any] = {"message": str(error)}
        yield f"event: error\ndata: {json.dumps(data)}\n\n".encode()

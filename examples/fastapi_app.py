"""A chat page with FastAPI. Replies stream as server-sent events and survive a lost connection.

Run it beside `afterword up`, or with AFTERWORD_REDIS_URL set to the Redis of your workers:

    pip install fastapi itsdangerous uvicorn
    SECRET_KEY=change-me uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from itsdangerous import BadSignature, URLSafeSerializer
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

from afterword.producer import AfterwordError, AsyncJob, AsyncProducer, Event

SECRET_KEY = os.environ["SECRET_KEY"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one producer for the whole process."""
    async with AsyncProducer() as producer:
        app.state.producer = producer
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=SECRET_KEY)


class Message(BaseModel):
    """What the page sends."""

    text: str


def current_user(request: Request) -> str:
    """Return who is asking. Here each browser is a user: put your own login in its place."""
    user_id: str = request.session.setdefault("user_id", uuid.uuid4().hex)
    return user_id


def open_producer(request: Request) -> AsyncProducer:
    """Return the producer of this process."""
    producer: AsyncProducer = request.app.state.producer
    return producer


User = Annotated[str, Depends(current_user)]
Producer = Annotated[AsyncProducer, Depends(open_producer)]


def tickets(user_id: str) -> URLSafeSerializer:
    """Return what signs job ids for one user: a ticket of one user is worthless to another."""
    return URLSafeSerializer(SECRET_KEY, salt=f"job of {user_id}")


def own_job(ticket: str, user_id: User, producer: Producer) -> AsyncJob:
    """Return the job of a ticket, or answer 404 if it is not a ticket of this user."""
    try:
        return producer.job(tickets(user_id).loads(ticket))
    except BadSignature:
        raise HTTPException(404, "no such reply") from None


@app.post("/messages", status_code=202)
async def send(
    message: Message,
    user_id: User,
    producer: Producer,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, str]:
    """Accept a message; the same `Idempotency-Key` never makes a second job."""
    job = await producer.submit(
        user_id=user_id,
        message=message.text,
        conversation_id="chat",
        idempotency_key=idempotency_key,
    )
    return {"reply": f"/replies/{tickets(user_id).dumps(job.id)}"}


def events_of(
    job: Annotated[AsyncJob, Depends(own_job)],
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[Event]:
    """Return the events of a reply that follow the last one that the browser has."""
    return job.stream(after=last_event_id)


@app.get("/replies/{ticket}", response_class=EventSourceResponse)
async def reply(
    events: Annotated[AsyncIterator[Event], Depends(events_of)],
) -> AsyncIterator[ServerSentEvent]:
    """Stream the reply. A browser that lost its connection sends the id of the last event."""
    try:
        async for event in events:
            data = event.model_dump(mode="json", exclude_none=True)
            yield ServerSentEvent(id=event.id, event=event.type, data=data)
    except AfterwordError as error:
        if error.http_headers:  # Redis is away: the browser will ask again
            raise
        yield ServerSentEvent(event="failed", data={"code": str(error)})


@app.delete("/replies/{ticket}")
async def stop(job: Annotated[AsyncJob, Depends(own_job)]) -> dict[str, bool]:
    """Cancel a reply that is not finished."""
    return {"cancelled": await job.cancel()}


@app.exception_handler(AfterwordError)
async def refuse(_: Request, error: AfterwordError) -> JSONResponse:
    """Answer with the error's text, which never repeats what the user wrote."""
    return JSONResponse({"detail": str(error)}, error.http_status, error.http_headers)


@app.get("/ready")
async def ready(producer: Producer) -> dict[str, bool]:
    """Tell a load balancer whether messages can be accepted now: 200, or 503 and why."""
    await producer.ping()
    return {"ready": True}


@app.get("/", response_class=HTMLResponse)
async def page(user_id: User) -> str:
    """Return the page; `user_id` is asked for, so that the browser gets its cookie."""
    return PAGE.replace("{{user}}", user_id[:6])


PAGE = """<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<h1>Chat <small>as {{user}}</small></h1>
<div id="log"></div>
<form><input name="text" size="60" autocomplete="off" autofocus> <button>Send</button></form>
<script>
const line = text => {
  const p = document.createElement("p");
  p.textContent = text;
  document.getElementById("log").append(p);
  return p;
};

document.forms[0].onsubmit = async submitted => {
  submitted.preventDefault();
  const text = submitted.target.text.value;
  submitted.target.reset();
  line("You: " + text);
  const answer = await fetch("/messages", {
    method: "POST",
    headers: {"Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID()},
    body: JSON.stringify({text}),
  });
  const body = await answer.json();
  if (!answer.ok) return line("[" + JSON.stringify(body.detail) + "]");

  const known = line(""), shown = line("Agent: ");
  const events = new EventSource(body.reply);  // reconnects by itself, with Last-Event-ID
  events.addEventListener("recalled", e => {
    const texts = JSON.parse(e.data).memories.map(memory => memory.text);
    known.textContent = "Memories: " + (texts.join(" · ") || "none");
  });
  events.addEventListener("delta", e => shown.append(JSON.parse(e.data).text));
  events.addEventListener("restart", () => shown.textContent = "Agent: ");
  events.addEventListener("final", () => events.close());
  events.addEventListener("failed", e => {
    shown.append("[no reply: " + JSON.parse(e.data).code + "]");
    events.close();
  });
};
</script>
"""

"""The same chat API with Flask: one producer for all threads, replies as server-sent events.

Run it beside `afterword up`, or with AFTERWORD_REDIS_URL set to the Redis of your workers:

    pip install flask
    SECRET_KEY=change-me flask --app examples/flask_app.py run

Each open stream holds a thread of the server. Give it enough of them, for example
`gunicorn --threads 100`, or serve streams from an async framework (see `fastapi_app.py`).
"""

from __future__ import annotations

import functools
import json
import os
import uuid
from collections.abc import Iterator

from flask import Flask, Response, abort, jsonify, request, session
from flask.typing import ResponseReturnValue
from itsdangerous import BadSignature, URLSafeSerializer

from afterword.producer import AfterwordError, Event, Job, Producer

SECRET_KEY = os.environ["SECRET_KEY"]

app = Flask(__name__)
app.config.update(SECRET_KEY=SECRET_KEY, SESSION_COOKIE_SAMESITE="Lax")


@functools.cache
def producer() -> Producer:
    """Return the one producer of this process, made at its first use; threads share it."""
    return Producer()


def current_user() -> str:
    """Return who is asking. Here each browser is a user: put your own login in its place."""
    user_id: str = session.setdefault("user_id", uuid.uuid4().hex)
    return user_id


def tickets(user_id: str) -> URLSafeSerializer:
    """Return what signs job ids for one user: a ticket of one user is worthless to another."""
    return URLSafeSerializer(SECRET_KEY, salt=f"job of {user_id}")


def own_job(ticket: str) -> Job:
    """Return the job of a ticket, or answer 404 if it is not a ticket of this user."""
    try:
        return producer().job(tickets(current_user()).loads(ticket))
    except BadSignature:
        abort(404)


@app.post("/messages")
def send() -> ResponseReturnValue:
    """Accept a message; the same `Idempotency-Key` never makes a second job."""
    user_id = current_user()
    job = producer().submit(
        user_id=user_id,
        message=request.form["text"],
        conversation_id="chat",
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return {"reply": f"/replies/{tickets(user_id).dumps(job.id)}"}, 202


@app.get("/replies/<ticket>")
def reply(ticket: str) -> ResponseReturnValue:
    """Stream the reply. A browser that lost its connection sends the id of the last event."""
    events = own_job(ticket).stream(after=request.headers.get("Last-Event-ID"))
    return Response(server_sent(events), mimetype="text/event-stream")


@app.delete("/replies/<ticket>")
def stop(ticket: str) -> ResponseReturnValue:
    """Cancel a reply that is not finished."""
    return {"cancelled": own_job(ticket).cancel()}


@app.errorhandler(AfterwordError)
def refuse(error: AfterwordError) -> ResponseReturnValue:
    """Answer with the error's text, which never repeats what the user wrote."""
    return jsonify(detail=str(error)), error.http_status, error.http_headers


@app.get("/ready")
def ready() -> ResponseReturnValue:
    """Tell a load balancer whether messages can be accepted now: 200, or 503 and why."""
    producer().ping()
    return {"ready": True}


def server_sent(events: Iterator[Event]) -> Iterator[str]:
    """Give the events of a reply in the wire format of server-sent events."""
    try:
        for event in events:
            data = event.model_dump_json(exclude_none=True)
            yield f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
    except AfterwordError as error:
        if error.http_headers:  # Redis is away: the browser will ask again
            raise
        yield f"event: failed\ndata: {json.dumps({'code': str(error)})}\n\n"

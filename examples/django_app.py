"""The same chat API with Django, in one file.

Run it beside `afterword up`, or with AFTERWORD_REDIS_URL set to the Redis of your workers:

    pip install django
    SECRET_KEY=change-me python examples/django_app.py runserver

In a project of yours, `views` and `urlpatterns` go where they always go; only `producer`, the
ticket and `server_sent` are about Afterword. Each open stream holds a thread of a WSGI server.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator

import django
from django.conf import settings
from django.core import signing
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path
from django.views.decorators.http import require_http_methods, require_POST

from afterword.producer import AfterwordError, Event, Job, Producer

# --- settings.py: what this file needs; your project has its own, with CsrfViewMiddleware

settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    ALLOWED_HOSTS=["localhost", "127.0.0.1", "testserver"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        f"{__name__}.RefusePolitely",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
)
django.setup()

# --- views.py


@functools.cache
def producer() -> Producer:
    """Return the one producer of this process, made at its first use; threads share it."""
    return Producer()


GetResponse = Callable[[HttpRequest], HttpResponseBase]


class RefusePolitely:
    """Middleware that answers with an error's text, which never repeats what the user wrote."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Let the request through."""
        return self.get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        """Turn an error of Afterword's into a response; leave all others to Django."""
        if not isinstance(error, AfterwordError):
            return None
        body, headers = {"detail": str(error)}, error.http_headers
        return JsonResponse(body, status=error.http_status, headers=headers)


def current_user(request: HttpRequest) -> str:
    """Return who is asking: in your project, `str(request.user.pk)`."""
    user_id: str = request.session.setdefault("user_id", uuid.uuid4().hex)
    return user_id


def own_job(request: HttpRequest, ticket: str) -> Job:
    """Return the job of a ticket, or answer 404 if it is not a ticket of this user."""
    try:
        return producer().job(signing.loads(ticket, salt=f"job of {current_user(request)}"))
    except signing.BadSignature:
        raise Http404 from None


@require_POST
def send(request: HttpRequest) -> HttpResponse:
    """Accept a message; the same `Idempotency-Key` never makes a second job."""
    user_id = current_user(request)
    job = producer().submit(
        user_id=user_id,
        message=request.POST.get("text", ""),
        conversation_id="chat",
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    ticket = signing.dumps(job.id, salt=f"job of {user_id}")
    return JsonResponse({"reply": f"/replies/{ticket}"}, status=202)


@require_http_methods(["GET", "DELETE"])
def reply(request: HttpRequest, ticket: str) -> HttpResponseBase:
    """Stream the reply, after the last event that the browser has; or cancel it."""
    job = own_job(request, ticket)
    if request.method == "DELETE":
        return JsonResponse({"cancelled": job.cancel()})
    events = job.stream(after=request.headers.get("Last-Event-ID"))
    return StreamingHttpResponse(server_sent(events), content_type="text/event-stream")


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


def ready(_: HttpRequest) -> HttpResponse:
    """Tell a load balancer whether messages can be accepted now: 200, or 503 and why."""
    producer().ping()
    return JsonResponse({"ready": True})


# --- urls.py, wsgi.py, manage.py

urlpatterns = [
    path("messages", send),
    path("replies/<str:ticket>", reply),
    path("ready", ready),
]

application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)

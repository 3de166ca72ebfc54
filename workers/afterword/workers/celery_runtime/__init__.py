"""Everything that touches Celery's and kombu's internals.

`host.worker_app` builds the Celery app of a worker. `consumer` takes hints off Redis and drops
messages that are not hints. `pool` runs the two tasks of `tasks` as coroutines on one event loop
in a thread of its own (`loop`, `executor`, `tracer`); `thread_handoff` carries results back to
Celery's thread. `heartbeat` records whether the consumer still gets answers from the broker.
"""

"""The local stack: every server that Afterword needs, on a machine that has none of them.

`client.attach` starts it, or joins the one that runs in the data directory (`data_dir`), and keeps
it alive through the `client_socket`. `supervisor` runs in the background: it starts the `services`
(a `valkey`, a small `model_server`, the workers), each a supervised `process`, restarts them, and
stops everything after the last client has left.
"""

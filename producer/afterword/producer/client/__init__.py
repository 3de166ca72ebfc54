"""Submitting jobs and following them.

`async_client` and `sync_client` are what users call. Both stand on a `JobService`: the one in
`ledger_job_service` uses Redis, the one in `afterword.producer.testing` the memory of a test.
`blocking` runs either for callers without an event loop.
"""

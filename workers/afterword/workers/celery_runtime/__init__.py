"""Celery's pool for coroutine tasks, and the guard in front of it."""

"""The record of all jobs and turns, in Redis; each step of a life is one Lua script."""

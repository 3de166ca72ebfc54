"""The pages, one module a subject: each takes a visit and returns an answer."""

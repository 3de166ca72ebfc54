"""mem0 behind the port `afterword.workers.ports.Memories`, one entry point for each backend.

`hosted.open_hosted` uses mem0's platform. `pgvector.recipe.open_selfhosted` (PostgreSQL) and
`sqlite.recipe.open_embedded` (one file) run mem0's open-source class in this process through
`open_source`. Call `import_guard` before anything imports mem0.
"""

"""The `embedded` backend: mem0's open-source class on one SQLite file, without a server.

`recipe.open_embedded` opens it. `store` is the vector store; `database` shares the file between
threads and processes, `schema`, `owners` and `rows` hold the SQL, `tokenizer`, `ranking` and
`vector_cache` find the best memories of an owner, `embedder` computes vectors offline.
"""

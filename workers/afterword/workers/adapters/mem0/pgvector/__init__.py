"""The `selfhosted` backend: mem0's open-source class on PostgreSQL with pgvector.

`recipe.open_selfhosted` opens it. `store` is mem0's vector store with our guarantees, `database`
everything about PostgreSQL that needs no mem0: connections, the table, what errors mean.
"""

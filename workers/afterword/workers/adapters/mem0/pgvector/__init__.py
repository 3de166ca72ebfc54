"""mem0 on PostgreSQL with pgvector."""

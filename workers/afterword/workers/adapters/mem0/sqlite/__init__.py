"""A vector store for mem0 on one SQLite file, for one machine."""

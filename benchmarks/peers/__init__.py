"""The same job on other engines: small programs, each as its own documentation would have it."""

"""The outside services behind the ports of `afterword.workers.ports`.

`claude` implements `Model` on the anthropic SDK, `mem0` implements `Memories` on mem0's platform
or its open-source class. Nothing else in the project imports `anthropic` or `mem0`, and every
error that leaves this package is an `AfterwordError`. Only `afterword.workers.wiring` imports it.
"""

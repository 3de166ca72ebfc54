"""The checks of `afterword doctor`.

`ledger`, `broker`, `claude` and `memory` ask; `judgement` says what the ledger's answers mean.
"""

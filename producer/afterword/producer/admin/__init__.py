"""What operators do: list and replay dead letters, erase users, read the account and the audit.

`async_admin` has all of it; `sync_admin` runs that on a thread of its own. `plan` and
`cost_estimate` say what a replay would take, `replay_driver` carries it out.
"""

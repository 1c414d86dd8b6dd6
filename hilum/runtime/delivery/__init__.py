"""The way out: rows of the ledger are claimed, delivered by a sink, and settled together with the event that says so.

`queue` is the ledger as one worker sees it, `worker` delivers for one destination, `breaker` holds a destination that is
away, `watch` wakes workers and keeps their leases, `outbox` publishes. `hilum.runtime.deliver` puts them together.
"""

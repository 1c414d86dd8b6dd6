"""The runtime: it owns consuming, transactions, state, timers, retry, quarantine, tracing and draining, for every processor."""

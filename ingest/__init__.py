"""Ways in: each adapter makes what it receives durable, acknowledges it, and hands it to `ingest.publish`."""

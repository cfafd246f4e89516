"""Taking calls in: receiver, spool, pipeline, loader, background jobs."""

"""Facts and questions: the record, the ledger that stores it, and the one way to ask it anything.

Start at `store.Warehouse`; `query.Query` is a question, `record.CALLS` the columns. Nothing is imported here, because
the receiver needs `control` alone and must start fast.
"""

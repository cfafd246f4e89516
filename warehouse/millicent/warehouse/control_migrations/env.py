"""Alembic's entry: the engine is handed over by `millicent.warehouse.control`."""

from alembic import context

with context.config.attributes["engine"].begin() as connection:
    context.configure(connection=connection, render_as_batch=True)
    context.run_migrations()

"""Alembic's entry: run the missing migrations on the connection that `hilum.database.migrate` hands over, in its transaction."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], transactional_ddl=True, on_version_apply=given["made"])
context.run_migrations()

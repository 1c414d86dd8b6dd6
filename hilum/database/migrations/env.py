"""Alembic's entry: run the missing migrations on the connection that `hilum.database.migrate` hands over, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, on_version_apply=context.config.attributes["made"])
context.run_migrations()

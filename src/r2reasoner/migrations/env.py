"""Runs revisions on the connection that `schema.py` hands over, in its transaction."""

from alembic import context

from r2reasoner.schema import VERSION
from r2reasoner.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION.name,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

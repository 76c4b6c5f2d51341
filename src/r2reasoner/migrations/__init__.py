"""How a ledger's database came to be what it is: alembic's revisions, run by `schema.py`.

A revision spells out its change, and never refers to `tables.py`, which moves on. Left out: the
way back. Before a change, keep a copy.
"""

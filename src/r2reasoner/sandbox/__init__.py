"""Where text written by models may run: Python text once, or a service that answers many times.

Nothing of ours but errors is imported here. What runs inside is never trusted: callers judge its
output as data. Leaves out: Windows and macOS isolation of CPython (there only Monty runs).
"""

from r2reasoner.sandbox.base import MIB, Ran, Sandbox
from r2reasoner.sandbox.worker import Worker

__all__ = ["MIB", "Ran", "Sandbox", "Worker"]

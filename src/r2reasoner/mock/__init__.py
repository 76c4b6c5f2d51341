"""A fake provider: OpenAI's chat API on a real socket, with scripted faults and its own books.

    async with MockProvider(faults=[Fault.RESET_MID_CHUNK]) as provider:
        ...  # talk to provider.base_url
        assert provider.books[0].usage == what_our_ledger_says

Code that blocks has it from a thread: `with in_thread(MockProvider()) as provider`.

`server.py` serves and keeps the books, `http.py` is what it speaks, `answers.py` writes what is
sent, `caching.py` is its prompt cache, `faults.py` lists what can go wrong and `effects.py` does
it. Users need it too: `r2reasoner mock`.
"""

from r2reasoner.mock.answers import ChatCall, count_tokens, echo
from r2reasoner.mock.faults import Cut, Ending, Fault, closed_port, random_faults, unreachable
from r2reasoner.mock.server import BookEnd, BookEntry, MockProvider
from r2reasoner.mock.threads import in_thread

__all__ = [
    "BookEnd",
    "BookEntry",
    "ChatCall",
    "Cut",
    "Ending",
    "Fault",
    "MockProvider",
    "closed_port",
    "count_tokens",
    "echo",
    "in_thread",
    "random_faults",
    "unreachable",
]

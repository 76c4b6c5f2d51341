"""A fake provider: OpenAI's chat API on a real socket, with scripted faults and its own books.

    async with MockProvider(faults=[Fault.RESET_MID_CHUNK]) as provider:
        ...  # talk to provider.base_url
        assert provider.books[0].usage == what_our_ledger_says

`server.py` serves and keeps the books, `http.py` is what it speaks, `answers.py` writes what is
sent, `faults.py` lists what can go wrong and `effects.py` does it. Users need it too:
`r2reasoner mock`.
"""

from r2reasoner.mock.answers import ChatCall, count_tokens, echo
from r2reasoner.mock.faults import Cut, Ending, Fault, closed_port, random_faults, unreachable
from r2reasoner.mock.server import BookEnd, BookEntry, MockProvider

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
    "random_faults",
    "unreachable",
]

"""Who may see the dashboard: a session by admin key, in a signed cookie, with its form token.

The secret that signs lives as long as the process, so a restart ends all sessions. Scripts cannot
read the cookie and other sites cannot send it; a change also needs the session's form token.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

COOKIE: Final = "r2_session"
LASTS_S: Final = 12 * 3600
TRIES: Final = 10
TRIES_WITHIN_S: Final = 60.0
MOST_PLACES: Final = 1000
MOST_ENDED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `token` goes into forms; `cookie` is what the browser keeps."""

    id: str
    expires: int
    token: str
    cookie: str


class Sessions:
    """The sessions of one process. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._clock = clock
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def begin(self) -> Session:
        """Return a new session."""
        return self._session(secrets.token_hex(16), int(self._clock()) + LASTS_S)

    def find(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None where it is forged, over or ended."""
        identifier, _, rest = (cookie or "").partition(".")
        expires, _, _ = rest.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return None
        session = self._session(identifier, int(expires))
        same = hmac.compare_digest(_bytes(session.cookie), _bytes(cookie or ""))
        over = session.expires <= self._clock() or identifier in self._ended
        return session if same and not over else None

    def end(self, session: Session) -> None:
        """End a session: its cookie is taken no more."""
        self._ended[session.id] = session.expires
        while len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)

    def is_token(self, session: Session, token: str) -> bool:
        """Tell whether a form's token is the session's."""
        return hmac.compare_digest(_bytes(session.token), _bytes(token))

    def may_try(self, place: str) -> bool:
        """Tell whether another key may be tried from a place (an address)."""
        tries = self._tries.get(place)
        while tries and tries[0] < self._clock() - TRIES_WITHIN_S:
            tries.popleft()
        return tries is None or len(tries) < TRIES

    def failed(self, place: str) -> None:
        """Count a wrong key."""
        self._tries.setdefault(place, deque(maxlen=TRIES)).append(self._clock())
        self._tries.move_to_end(place)
        while len(self._tries) > MOST_PLACES:
            self._tries.popitem(last=False)

    def _session(self, identifier: str, expires: int) -> Session:
        said = f"{identifier}.{expires}"
        return Session(
            identifier,
            expires,
            self._sign(f"form {said}"),
            f"{said}.{self._sign(f'cookie {said}')}",
        )

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, _bytes(text), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    """Encode what a browser sent, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")

"""One request's bill where a key pays: each call is held against the key's budget as well.

That is done in the transaction that records the call, and it is charged in the one that records
what the call cost: who is killed leaves both or neither.
"""

from contextlib import suppress
from typing import Final

from r2reasoner.budget import Meter, OpenCall
from r2reasoner.errors import BudgetExceeded, LedgerError
from r2reasoner.gateway.keys import Hold, Key, Keys, OverBudget
from r2reasoner.ledger import Ledger
from r2reasoner.types import Call, Pico

UNPRICED: Final = "its price is unknown, so it cannot be held to the budget of a key"


class KeyMeter(Meter):
    """A meter whose calls are also a key's spending. The keys ride along with its ledger.

    `over_budget` is the last call's that the key's budget had no room for. The first call that may
    cost something also records whose query it is.
    """

    def __init__(
        self, ledger: Ledger, query_id: str, cap: Pico | None, keys: Keys, key: Key
    ) -> None:
        super().__init__(ledger, query_id, cap)
        self._keys = keys
        self._key = key
        self._holds: dict[str, Hold] = {}
        self._is_claimed = False
        self.over_budget: OverBudget | None = None

    def claim(self) -> None:
        """Queue that the query is the key's, where no call has said so."""
        if not self._is_claimed:
            with suppress(LedgerError):  # it is closed, so that there is no trace to see either
                self._keys.record(self._key, self.query_id)

    async def _record(self, call: OpenCall) -> None:
        if call.bound is None:
            if self._key.has_budget:
                raise BudgetExceeded(f"{call.model}: {UNPRICED}")
            await super()._record(call)
            return
        hold = self._holds[call.id] = self._keys.plan_hold(self._key, call.id, call.bound)
        wish = self._keys.placing(self._key, hold, None if self._is_claimed else self.query_id)
        left = await self._ledger.begin(call, wish)
        self._is_claimed = True
        if left is not None:
            self.over_budget = OverBudget(self._key, hold.amount, left)
            raise self.over_budget

    def _close(self, call: OpenCall, settled: Call) -> None:
        hold = self._holds.pop(call.id, None)
        wish = None if hold is None else self._keys.settling(hold, settled.cost or 0)
        self._ledger.finish(settled, wish)

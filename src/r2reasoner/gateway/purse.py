"""One request's bill where a key pays: each call is held against the key's budget as well.

The key's budget is asked for before the ledger's entry is made, so that a call that does not fit
leaves no trace of a dispatch, and is settled when the call is.
"""

from typing import Final

from r2reasoner.budget import Meter, OpenCall
from r2reasoner.errors import BudgetExceeded
from r2reasoner.gateway.keys import Hold, Key, Keys, OverBudget
from r2reasoner.ledger import Ledger
from r2reasoner.types import Pico

UNPRICED: Final = "its price is unknown, so it cannot be held to the budget of a key"


class KeyMeter(Meter):
    """A meter whose calls are also a key's spending.

    `over_budget` is the last call's that the key's budget had no room for.
    """

    def __init__(
        self, ledger: Ledger, query_id: str, cap: Pico | None, keys: Keys, key: Key
    ) -> None:
        super().__init__(ledger, query_id, cap)
        self._keys = keys
        self._key = key
        self._holds: dict[str, Hold] = {}
        self.over_budget: OverBudget | None = None

    async def _hold(self, call: OpenCall) -> None:
        if call.bound is None:
            if self._key.has_budget:
                raise BudgetExceeded(f"{call.model}: {UNPRICED}")
            return
        hold = self._holds[call.id] = self._keys.plan_hold(self._key, call.id, call.bound)
        if not self._key.has_budget:
            self._keys.note(self._key, hold)
            return
        try:
            await self._keys.hold(self._key, hold)
        except OverBudget as error:
            self.over_budget = error
            raise

    def _unhold(self, call: OpenCall, cost: Pico) -> None:
        hold = self._holds.pop(call.id, None)
        if hold is not None:
            self._keys.settle(hold, cost)

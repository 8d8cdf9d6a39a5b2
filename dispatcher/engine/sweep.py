"""Publishes again what nobody works on; waits for no handler's slot."""

from collections.abc import Mapping

from dispatcher.engine import lifecycle
from dispatcher.engine.model import Action, BrokerDown, LedgerDown, Overdue
from dispatcher.engine.ports import Broker, Event, Ledger, Observer
from dispatcher.sdk import ActionType

MOST = 100  # of a provider in one round


class Sweeper:
    def __init__(
        self,
        actions: Mapping[ActionType, Action],
        ledger: Ledger,
        broker: Broker,
        observer: Observer,
    ) -> None:
        self._actions = actions
        self._ledger = ledger
        self._broker = broker
        self._observer = observer

    def sweep(self) -> None:
        try:
            overdue = self._ledger.due(list(self._actions), MOST)
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, error=error)
            return
        for one in overdue:
            if not self.hand_on(one, "overdue"):
                break

    def hand_on(self, overdue: Overdue, why: str) -> bool:
        """False: the broker is down, and more tries would only take time."""
        action = self._actions.get(overdue.ref.type)
        if action is None:
            self._observer.saw(Event.NO_ACTION, overdue.ref)
            return True
        settles = lifecycle.settles(overdue, action.spec)
        try:
            if settles:
                self._broker.settle(overdue.ref)
            else:
                self._broker.publish([overdue.ref])
        except BrokerDown as error:
            # A later sweep publishes it again.
            self._observer.saw(Event.BROKER_DOWN, overdue.ref, error=error)
            return False
        self._observer.saw(Event.SWEPT, overdue.ref, why=why, settles=settles)
        return True

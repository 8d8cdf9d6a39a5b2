"""One action type's turn at polling: as many jobs as there is room for, noted, then published.

A poll only brings hints: what goes wrong here costs a wait for AWS's next offer, never a job."""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from dispatcher.engine import lifecycle
from dispatcher.engine.model import (
    ActionTypeNotFound,
    ApiError,
    BrokerDown,
    Crew,
    JobRef,
    LedgerDown,
    Offer,
    Throttled,
)
from dispatcher.engine.ports import Broker, Clock, Event, Fleet, JobApi, Ledger, Observer, Turn
from dispatcher.engine.times import Pace, Times
from dispatcher.sdk import ActionType

FULL = 0.02  # seconds until a full house is looked at again
FULL_LOOKS = 10  # then the turn ends: it takes a slot that another type's poll may want
MOST = 100  # jobs a call: AWS names no limit, and no client was seen to get more


class Poller:
    def __init__(
        self,
        api: JobApi,
        ledger: Ledger,
        broker: Broker,
        fleet: Fleet,
        observer: Observer,
        clock: Clock,
        times: Times,
        jitter: Callable[[], float],
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._broker = broker
        self._fleet = fleet
        self._observer = observer
        self._clock = clock
        self._times = times
        self._jitter = jitter

    def tick(self, turns: Sequence[Turn]) -> None:
        """Asks for a poll of each action type and region that has rested."""
        try:
            for action_type, region in self._fleet.rested(turns):
                self._broker.ask_to_poll(action_type, region)
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, error=error)
        except BrokerDown as error:
            self._observer.saw(Event.BROKER_DOWN, error=error)

    def turn(self, action_type: ActionType, region: str) -> None:
        """Polls until the next tick, or until AWS has nothing; not when it is another's turn."""
        holder = uuid.uuid4().hex
        try:
            rest = self._fleet.take_turn(action_type, region, holder)
            if rest is None:
                return
            pace = Pace(rest, self._times)
            try:
                pace = self._until_next_tick(action_type, region, pace)
            finally:
                pause = pace.rest * self._jitter()
                self._fleet.end_turn(action_type, region, holder, pace.rest, pause)
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, error=error)
        except BrokerDown as error:
            self._observer.saw(Event.BROKER_DOWN, error=error)

    def _until_next_tick(self, action_type: ActionType, region: str, pace: Pace) -> Pace:
        until = self._clock.monotonic() + self._times.poll_interval.total_seconds()
        full = 0
        while full < FULL_LOOKS:
            crew = self._fleet.crew(action_type.provider)
            if crew.paused or not crew.slots:
                return self._nobody(action_type, crew, pace)
            room = lifecycle.room(crew, self._broker.waiting(action_type.provider))
            if room:
                full = 0
                pace = self._poll(action_type, region, min(room, MOST), pace)
                if pace.rest:
                    return pace
            else:
                full += 1
                self._clock.sleep(FULL)
            if self._clock.monotonic() >= until:
                break
        return pace

    def _nobody(self, action_type: ActionType, crew: Crew, pace: Pace) -> Pace:
        """Nobody is to work: AWS keeps the jobs, and is not asked."""
        if not crew.paused:
            self._observer.saw(
                Event.NO_WORKERS, action_type=action_type.task_name, queue=action_type.queue
            )
        return pace.busy()

    def _poll(self, action_type: ActionType, region: str, limit: int, pace: Pace) -> Pace:
        """The pace after it: without a rest as long as there may be more."""
        try:
            new = self._take(action_type, region, limit)
        except Throttled as error:
            self._observer.saw(Event.POLL_THROTTLED, error=error, action_type=action_type.task_name)
            return pace.throttled()
        except ActionTypeNotFound as error:
            self._observer.saw(Event.TYPE_UNKNOWN, error=error, action_type=action_type.task_name)
            return pace.unknown()
        except (ApiError, BrokerDown) as error:
            self._observer.saw(Event.POLL_FAILED, error=error, action_type=action_type.task_name)
            return pace.idle()
        return pace.busy() if new else pace.idle()

    def _take(self, action_type: ActionType, region: str, limit: int) -> int:
        asked = self._ledger.now()
        offers = self._api.poll(action_type, region, limit)
        new = self._new(action_type, region, asked, offers) if offers else ()
        name, offered = action_type.task_name, len(offers)
        self._observer.saw(Event.POLLED, action_type=name, offers=offered, new=len(new))
        return len(new)

    def _new(
        self, action_type: ActionType, region: str, asked: datetime, offers: Sequence[Offer]
    ) -> Sequence[JobRef]:
        """Noted, and published."""
        refs = {
            JobRef(offer.job_id, offer.client_id, action_type, region): offer.nonce
            for offer in offers
        }
        new = self._ledger.offer(uuid.uuid4().hex, asked, refs)
        if new:
            self._broker.publish(new)
        for ref in new:
            self._observer.saw(Event.OFFERED, ref)
        return new

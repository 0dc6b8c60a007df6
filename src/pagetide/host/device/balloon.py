"""One guest's balloon device: its queues, its configuration, and what the host may set (virtio 1.2, 5.5).

Discarding is held back in three ways:

- *Paused*: reports stay in the ring and are dealt with after `paused` is unset, so nothing is lost. Until then the
  guest misses the blocks that it has in flight, one batch with Linux, and reports no more. Acknowledging them instead
  would lose them: the guest would take them for reported, and might use them again before they are discarded.
- *Inhibited*, for a guest whose pages must stay where they are (device assignment): reports and inflated pages are
  acknowledged at once and left alone. They are not made up for later.
- *Poisoned*: with PAGE_POISON and a `poison_val` other than 0, a reported page must read as `poison_val` or be
  untouched (virtio 1.2, 5.5.6.7), and a discarded page reads as zeros. Reports are acknowledged and left alone. So are
  those of a driver that was served by another device before, if nobody knows what it told that one.
"""

from pagetide.host.device.config import DeviceConfig
from pagetide.host.device.kept_state import DeviceKept
from pagetide.host.device.queues.element import DEVICE_INIT, KEEPS, TURN_BYTES_MAX, TURN_PUNCHES_MAX, turn_control
from pagetide.host.device.queues.hinting import HintingRound
from pagetide.host.device.queues.kinds import make_queue
from pagetide.host.device.queues.place import QueuePlace, addresses
from pagetide.host.device.queues.started import Started, StartedQueues
from pagetide.host.device.queues.statistics import StatisticsQueue
from pagetide.host.device.queues.turn import NOTHING, Turn
from pagetide.host.device.state import DeviceState
from pagetide.host.device.target import Target
from pagetide.host.memory.guest_memory import DeviceMemory
from pagetide.host.memory.ledger import SKIPPED_INHIBITED, SKIPPED_POISONED, Ledger
from pagetide.virtio.balloon import CMD_ID_STOP, CONFIG_POISON_VAL, Feature, Queue, queues
from pagetide.virtio.split_ring.device_ring import DeviceRing
from pagetide.virtio.split_ring.inflight import InflightRegion

OPTIONAL_FEATURES = (
    Feature.STATS_VQ | Feature.DEFLATE_ON_OOM | Feature.FREE_PAGE_HINT | Feature.PAGE_POISON | Feature.REPORTING
)
"""The balloon's features, each of which a user may want to do without."""

FEATURES = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.MUST_TELL_HOST | OPTIONAL_FEATURES
"""All that the device can offer."""

QUEUES_MAX = len(Queue)
"""As many queues as a balloon can have, whatever is negotiated."""

_POISON_VAL = slice(CONFIG_POISON_VAL, CONFIG_POISON_VAL + 4)
_NO_POISON = bytes(4)

# Python 3.11 finds a member of an enum in 0.2 µs, and in many times that after a turn has emptied the caches.
_REPORTING, _INFLATE, _STATS = Queue.REPORTING, Queue.INFLATE, Queue.STATS


class BalloonDevice:
    """The device side of one balloon.

    Attributes:
        ledger: the account of what it did.
        config: the configuration space.
        queues: those that are started.
        target: how much memory the guest is to make do with, and has.
        paused: reports are to stay in the ring; after unsetting it, process the queue that has them.
        inhibited: nothing is to be discarded.
        statistics: the guest's memory statistics as told last, by name; empty before the first.
    """

    ledger: Ledger
    config: DeviceConfig
    queues: StartedQueues
    target: Target
    paused: bool
    inhibited: bool
    statistics: dict[str, int]

    def __init__(
        self,
        memory: DeviceMemory,
        ledger: Ledger,
        *,
        verify_share: float = 1.0,
        turn_bytes_max: int = TURN_BYTES_MAX,
        turn_punches_max: int = TURN_PUNCHES_MAX,
    ) -> None:
        """Start with no queues.

        Args:
            memory: the guest's memory; tell `memory_changed` when regions move.
            ledger: where to account for what is done.
            verify_share: share of elements whose discarding is read back, evenly spread, the first one included; 0 is
                none of them, 1 all.
            turn_bytes_max: a turn ends with the piece that reaches so many bytes discarded.
            turn_punches_max: and with so many discarding calls.

        Raises:
            ValueError: the share is not from 0 to 1.
        """
        if not 0 <= verify_share <= 1:
            raise ValueError(f"the share verified must be from 0 to 1, not {verify_share}")
        self.ledger = ledger
        self.config = DeviceConfig()
        self.paused = self.inhibited = False
        self.statistics = {}
        self._can_poison = self._deflates_on_oom = False
        self._hinting = HintingRound()
        self._memory = memory
        self.target = Target(memory, self.config)
        self.queues = StartedQueues(memory)
        self._control = turn_control(verify_share, bytes_max=turn_bytes_max, punches_max=turn_punches_max)

    def set_target_bytes(self, target_bytes: int | None) -> None:
        """Want the guest to make do with this much memory, or with all that it has (None).

        The driver is to be told of a changed configuration. Errors as `Target.set_bytes`.
        """
        self.target.set_bytes(target_bytes)

    @property
    def ram_bytes(self) -> int:
        """Memory that the guest has, as well as it can be told (ram_size.py); 0 before it has shared any."""
        return self.target.ram_bytes

    @property
    def hinting(self) -> bool:
        """Whether a round of free page hints is asked for or under way."""
        return self._hinting.wanted

    def begin_hinting(self) -> None:
        """Ask for a round of free page hints; the driver is to be told of a changed configuration."""
        self._hinting.begin()
        self.config.set_cmd_id(self._hinting.cmd_id)

    def request_statistics(self) -> tuple[int, Turn] | None:
        """Ask for new statistics; the queue and what is to be done for it, or None without such a queue."""
        index = self.queues.index_of(_STATS)
        started = None if index is None else self.queues.get(index)
        if index is None or started is None:
            return None
        assert isinstance(started.queue, StatisticsQueue)
        return index, started.queue.request()

    @property
    def state(self) -> DeviceState:
        """What a successor must know."""
        return DeviceState(
            self.config.fields.actual, self.config.poison_val, self._hinting.cmd_id, self._hinting.next_cmd_id
        )

    def keep(self) -> DeviceKept:
        """All that a successor cannot find elsewhere."""
        config = self.config
        return DeviceKept(
            bytes(config.data),
            config.poison_known,
            config.poison_told,
            self._can_poison,
            self._hinting.cmd_id,
            self._hinting.next_cmd_id,
            sorted(self.queues.once_started),
            {index: at for index, at in self.queues.left_at.items() if index not in self.queues},
        )

    def restore(self, kept: DeviceKept) -> bool:
        """Go on as a predecessor on the same connection; whether the driver is to be told of a changed configuration.

        A round of hints that it had begun is over, so that the driver takes its pages back.
        """
        self.config.restore(kept.config, known=kept.poison_known, told=kept.poison_told)
        self._can_poison = kept.can_poison
        self.queues.once_started = set(kept.once_started)
        self.queues.left_at = dict(kept.left_at)
        self._hinting.take_over(kept.cmd_id, kept.next_cmd_id)
        self.config.set_cmd_id(self._hinting.cmd_id)
        return self._hinting.cmd_id != kept.cmd_id

    def take_over(self, state: DeviceState) -> bool:
        """Go on as a predecessor left it; whether the driver is to be told of a changed configuration.

        A round of hints that it had begun is over, so that the driver takes its pages back. What the driver has told
        this device already stands.
        """
        self.config.take_over(state.actual, state.poison_val)
        self._hinting.take_over(state.cmd_id, state.next_cmd_id)
        self.config.set_cmd_id(self._hinting.cmd_id)
        return self._hinting.cmd_id != CMD_ID_STOP

    def reset(self) -> None:
        """Forget what the driver set, and end a round of hints (virtio 1.2, 2.4); its queues must be stopped."""
        assert not len(self.queues)
        self._memory.forget_inflated()
        self._hinting.end()
        self.config.set_cmd_id(self._hinting.cmd_id)
        self.config.reset()
        self.queues.once_started.clear()
        self.queues.forget()
        self.statistics = {}

    def start_queue(
        self, index: int, place: QueuePlace, base: int, features: int, inflight: InflightRegion | None = None
    ) -> None:
        """Begin to serve a queue; call the driver once afterwards, for an earlier device may have died before it did.

        Args:
            index: the queue's, dense over the queues that exist with these features.
            place: where it is.
            base: where the front-end says that the queue stands; what was not given back before it is taken, too.
            features: what was negotiated.
            inflight: where to keep track of what is taken, so that a successor can go on.

        Raises:
            GuestMemoryError: a part of the queue is not in the guest's memory.
            ValueError: the size, an address or the base is not one that virtio 1.2, 2.7, allows, or the in-flight
                region is not this queue's.
        """
        desc_address, avail_address, used_address = addresses(self._memory, place)
        kinds = queues(features)
        if index >= len(kinds):
            return
        ring = DeviceRing(
            place.size,
            desc_address=desc_address,
            avail_address=avail_address,
            used_address=used_address,
            event_idx=bool(features & Feature.EVENT_IDX),
            indirect=bool(features & Feature.INDIRECT_DESC),
            base=base,
            inflight=inflight,
        )
        self._can_poison = bool(features & Feature.PAGE_POISON)
        self._control[DEVICE_INIT] = bool(features & Feature.DEVICE_INIT_REPORTED)
        self._control[KEEPS] = bool(features & Feature.MUST_TELL_HOST)
        self._deflates_on_oom = bool(features & Feature.DEFLATE_ON_OOM)
        left_at = self.queues.left_at.get(index, 0)
        if ring.next_avail == 0 or ring.next_avail != left_at:
            self._memory.forget_inflated()  # the driver is another one, or its memory is of another time
        if ring.last_avail == 0 and left_at != 0:
            self._begin_anew()
        if index not in self.queues.once_started and ring.last_avail != 0:
            self.config.served_before()
        queue = make_queue(
            kinds[index],
            ring,
            control=self._control,
            ledger=self.ledger.words,
            hinting=self._hinting,
            counted_bytes=self.queues.take_counted_bytes(index, ring.next_avail),
        )
        self.queues.start(index, Started(kinds[index], place, queue))

    def process(self, index: int, budget: int) -> Turn:
        """Serve up to `budget` elements of a queue, or a part of one, within a turn's bounds.

        Raises:
            RingError: the driver broke a rule of the ring; nothing but a reset helps.
        """
        assert budget > 0
        started = self.queues.get(index)
        if started is None or (self.paused and started.kind is _REPORTING):
            return NOTHING
        kind, _, queue = started
        budget = self.queues.budget(index, budget)
        if budget == 0:
            return NOTHING
        turn = queue.process(self._memory.region_map.table, budget, self._skip(kind))
        if kind is _STATS:
            assert isinstance(queue, StatisticsQueue)
            if queue.latest is not self.statistics:
                self.statistics = queue.latest
                if self.target.learn(queue.latest, deflates_on_oom=self._deflates_on_oom):
                    turn = turn._replace(config_changed=True)
        elif turn.config_changed:
            self.config.set_cmd_id(self._hinting.cmd_id)
        return turn

    def skip_if_served(self, index: int) -> int | None:
        """What `BlockQueue.process` would be told to skip on a queue now; None if there would be no turn."""
        started = self.queues.get(index)
        if started is None or self.queues.finishing or (self.paused and started.kind is _REPORTING):
            return None
        return self._skip(started.kind)

    def _begin_anew(self) -> None:
        """A queue begins at 0 that was left elsewhere: its driver is another one, though no reset was told.

        QEMU's generic front-end (vhost-user-test-device, 11.1) tells of none when its guest is reset.
        """
        self.queues.forget()
        self._hinting.end()
        self.config.set_cmd_id(self._hinting.cmd_id)
        self.config.begin_anew()
        self.statistics = {}
        self.target.forget()

    def _skip(self, kind: Queue) -> int:
        """The word that counts what is left alone on a queue, or 0 to discard."""
        if self.inhibited:
            return SKIPPED_INHIBITED if kind is _REPORTING or kind is _INFLATE else 0
        if kind is _REPORTING and self._can_poison:
            config = self.config
            return 0 if config.poison_known and config.data[_POISON_VAL] == _NO_POISON else SKIPPED_POISONED
        return 0

"""Virtual services, real servers and address lists in shared memory: bodies and the Python face."""

import ipaddress
from pathlib import Path

from libc.string cimport memcmp, memcpy, memset

from lbfast._address cimport address_format, address_parse
from lbfast._shm cimport Region, SHM_HEADER
from lbfast._sys cimport (
    atomic_add32, atomic_load32, atomic_load64, atomic_store32, atomic_store64, boot_ms, fence_acquire, fence_release,
)


cdef bint network_holds(const TableMap* table, uint64_t packed, const uint8_t* address) noexcept nogil:
    cdef uint32_t i, whole, rest, first = list_first(packed)
    cdef const Network* network
    for i in range(list_count(packed)):
        network = &table.networks[first + i]
        whole = network.bits >> 3
        rest = network.bits & 7
        if memcmp(network.address, address, whole) != 0:
            continue
        if rest == 0 or (network.address[whole] ^ address[whole]) >> (8 - rest) == 0:
            return True
    return False


def mapped(str text not None):
    """16 bytes of an address; IPv4 as ::ffff:a.b.c.d."""
    cdef uint8_t key[16]
    address_parse(text, key)
    return key[:16]


def part_of(str client not None):
    """Which part of a staggered drain a client (as its service's mask leaves it) belongs to."""
    cdef uint8_t key[16]
    address_parse(client, key)
    return drain_part(key)


def unmapped(bytes packed not None):
    """Text of a 16-byte address."""
    if len(packed) != 16:
        raise ValueError(f"{len(packed)} bytes are no address: expected 16")
    return address_format(<const uint8_t*>packed)


def may_meet_itself(str address, int port, tuple given):
    """Can a connect to this place be given the very port it goes to, and so reach its own socket?

    ``given``: lowest and highest port that connecting sockets get.
    """
    if not ipaddress.ip_address(address).is_loopback:
        return False
    return port == 0 or given[0] <= port <= given[1]


def given_ports():
    return tuple(map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()))


cdef class Table:
    """Settings, verdicts and live counts, one slot each."""

    VERSION = TABLE_VERSION
    MAX_SERVICES = TABLE_SERVICES
    MAX_REALS = TABLE_REALS

    def __init__(self):
        raise TypeError("use Table.create or Table.attach")

    @staticmethod
    def create():
        cdef Table table = Table.__new__(Table)
        cdef size_t size = sizeof(TableHead) + TABLE_SERVICES * sizeof(Service) + TABLE_REALS * sizeof(Real)
        size += TABLE_REFS * sizeof(uint32_t) + TABLE_NETWORKS * sizeof(Network)
        table.region = Region.create("table", size, TABLE_VERSION)
        table._point()
        return table

    @staticmethod
    def attach(int fd):
        cdef Table table = Table.__new__(Table)
        table.region = Region.attach(fd, "table", TABLE_VERSION)
        table._point()
        return table

    cdef _point(self):
        cdef uint8_t* at = self.region.base + SHM_HEADER
        self.map.head = <TableHead*>at
        at += sizeof(TableHead)
        self.map.services = <Service*>at
        at += TABLE_SERVICES * sizeof(Service)
        self.map.reals = <Real*>at
        at += TABLE_REALS * sizeof(Real)
        self.map.refs = <uint32_t*>at
        at += TABLE_REFS * sizeof(uint32_t)
        self.map.networks = <Network*>at

    @property
    def fd(self):
        return self.region.fd

    cdef Service* _service(self, long slot) except NULL:
        if not 0 <= slot < TABLE_SERVICES:
            raise IndexError(f"service slot {slot}: expected 0 to {TABLE_SERVICES - 1}")
        return &self.map.services[slot]

    cdef Real* _real(self, long slot) except NULL:
        if not 0 <= slot < TABLE_REALS:
            raise IndexError(f"real server slot {slot}: expected 0 to {TABLE_REALS - 1}")
        return &self.map.reals[slot]

    # Lists: unchanged ones stay where they are; others go to the next free stretch after the last one
    # placed, so that a stretch just given up is not reused while a worker may still walk it.

    def _used(self, names):
        taken = []
        cdef uint32_t i
        for i in range(min(self.map.head.services_top, TABLE_SERVICES)):
            if self.map.services[i].enabled:
                if names == "refs":
                    taken.append(self.map.services[i].reals)
                else:
                    taken += [self.map.services[i].allow, self.map.services[i].deny, self.map.services[i].trusted]
        return sorted((t >> 32, t & 0xFFFFFFFF) for t in taken if t & 0xFFFFFFFF)

    def _stretch(self, names, size_t count, size_t start, size_t total):
        used = self._used(names)
        for origin in (start, 0):
            at = origin
            for first, length in used:
                if first >= at + count:
                    break
                if first + length > at:
                    at = first + length
            if at + count <= total:
                return at
        raise ValueError(f"no room for a list of {count} {names}: the table holds {total}")

    cdef uint64_t _place_refs(self, object slots, uint64_t present) except? 0:
        cdef uint32_t i, first = list_first(present), count = len(slots)
        if count == 0:
            return 0
        if list_count(present) == count and all(self.map.refs[first + i] == slots[i] for i in range(count)):
            return present
        first = self._stretch("refs", count, self.map.head.next_ref, TABLE_REFS)
        for i in range(count):
            self._real(slots[i])
            self.map.refs[first + i] = slots[i]
        self.map.head.next_ref = first + count
        return (<uint64_t>first << 32) | count

    cdef uint64_t _place_networks(self, object cidrs, uint64_t present) except? 0:
        cdef uint32_t i, first, count = len(cidrs)
        cdef Network* network
        cdef bytes packed
        if count == 0:
            return 0
        wanted = []
        for cidr in cidrs:
            parsed = ipaddress.ip_network(cidr, strict=False)
            bits = parsed.prefixlen + (96 if parsed.version == 4 else 0)
            wanted.append((mapped(str(parsed.network_address)), bits))
        first = list_first(present)
        if list_count(present) == count and all(
            (self.map.networks[first + i].address[:16], self.map.networks[first + i].bits) == wanted[i]
            for i in range(count)
        ):
            return present
        first = self._stretch("networks", count, self.map.head.next_network, TABLE_NETWORKS)
        for i in range(count):
            network = &self.map.networks[first + i]
            packed, network.bits = wanted[i]
            memcpy(network.address, <const uint8_t*>packed, 16)
        self.map.head.next_network = first + count
        return (<uint64_t>first << 32) | count

    def write_service(self, long slot, settings):
        """Publish a service; live workers follow at once."""
        cdef Service* s = self._service(slot)
        cdef bytes raw = settings["id"]
        cdef uint64_t reals, allow, deny, trusted
        sources = [mapped(a) for a in settings["sources"]]
        if len(raw) != 16:
            raise ValueError(f"service id: {len(raw)} bytes, expected 16")
        if len(sources) > TABLE_SOURCES:
            raise ValueError(f"{len(sources)} source addresses, expected at most {TABLE_SOURCES}")
        if s.enabled and s.id[:16] != raw:
            raise ValueError(f"service slot {slot} belongs to another service: clear it first")
        reals = self._place_refs(list(settings["reals"]), s.reals if s.enabled else 0)
        allow = self._place_networks(list(settings["allow"]), s.allow if s.enabled else 0)
        deny = self._place_networks(list(settings["deny"]), s.deny if s.enabled else 0)
        trusted = self._place_networks(list(settings["accept_proxy_from"]), s.trusted if s.enabled else 0)
        memcpy(s.id, <const uint8_t*>raw, 16)
        for name in ("fallback", "scheduler", "persistence", "mask_v4", "mask_v6", "drain_policy", "at_limit"):
            self._set_small(slot, name, int(settings[name]))
        s.redispatch = bool(settings["redispatch"])
        s.retries = min(int(settings["retries"]), 255)
        s.client_limit_report_only = bool(settings["client_limit_report_only"])
        s.keepalive = bool(settings["keepalive"])
        self._set_congestion(slot, settings["congestion"].encode())
        s.send_proxy = settings["send_proxy"]
        s.passive_fall = settings["passive_fall"]
        s.keepalive_idle_s = settings["keepalive_idle_s"]
        s.keepalive_interval_s = settings["keepalive_interval_s"]
        s.keepalive_count = settings["keepalive_count"]
        s.user_timeout_ms = settings["user_timeout_ms"]
        s.proxy_timeout_ms = settings["proxy_timeout_ms"]
        s.connect_timeout_ms = settings["connect_timeout_ms"]
        s.persistence_timeout_ms = settings["persistence_timeout_ms"]
        s.client_idle_ms = settings["client_idle_ms"]
        s.server_idle_ms = settings["server_idle_ms"]
        s.half_close_ms = settings["half_close_ms"]
        s.max_connections = settings["max_connections"]
        s.client_limit = settings["client_limit"]
        # Never 0 in between: a worker would connect without a source address.
        for i, source in enumerate(sources):
            if s.sources[i][:16] != source:
                memcpy(s.sources[i], <const uint8_t*>(<bytes>source), 16)
        fence_release()
        s.source_count = len(sources)
        atomic_store64(<int64_t*>&s.reals, <int64_t>reals)
        atomic_store64(<int64_t*>&s.allow, <int64_t>allow)
        atomic_store64(<int64_t*>&s.deny, <int64_t>deny)
        atomic_store64(<int64_t*>&s.trusted, <int64_t>trusted)
        self.map.head.services_top = max(self.map.head.services_top, <uint32_t>slot + 1)
        atomic_store32(&s.enabled, 1)

    def _set_small(self, long slot, str name, long value):
        cdef Service* s = self._service(slot)
        if name == "fallback":
            if value >= 0:
                self._real(value)
            s.fallback = value
        elif name == "scheduler":
            s.scheduler = value
        elif name == "persistence":
            s.persistence = value
        elif name == "mask_v4":
            s.mask_v4 = min(value, 32)
        elif name == "mask_v6":
            s.mask_v6 = min(value, 128)
        elif name == "drain_policy":
            s.drain_policy = value
        else:
            s.at_limit = value

    def _set_congestion(self, long slot, bytes name not None):
        cdef Service* s = self._service(slot)
        if len(name) >= sizeof(s.congestion):
            raise ValueError(f"congestion control {name!r}: expected at most {sizeof(s.congestion) - 1} characters")
        memset(s.congestion, 0, sizeof(s.congestion))
        memcpy(s.congestion, <const char*>name, len(name))

    def clear_service(self, long slot):
        """Give the slot up; connections that still run keep their settings until they end."""
        atomic_store32(&self._service(slot).enabled, 0)

    def write_real(self, long slot, settings):
        """Publish a real server; admin state, health and live counts stay if the id is unchanged."""
        cdef Real* r = self._real(slot)
        cdef bytes raw = settings["id"]
        cdef bytes address = mapped(settings["address"])
        cdef uint32_t seq = r.cut_seq
        if len(raw) != 16:
            raise ValueError(f"real server id: {len(raw)} bytes, expected 16")
        if r.id[:16] != raw or not r.enabled:
            # Not the live count: connections to the slot's former tenant may be ending right now.
            atomic_store32(&r.enabled, 0)
            memset(r, 0, <size_t>(<char*>&r.connections - <char*>r))
            r.cut_seq = seq
            r.turn = 0
            r.last_failure_ms = 0
            r.failures = 0
            r.last_failure_errno = 0
        memcpy(r.id, <const uint8_t*>raw, 16)
        memcpy(r.address, <const uint8_t*>address, 16)
        r.tag = real_tag(raw)
        r.is_ipv6 = address[:12] != b"\0" * 10 + b"\xff\xff"
        r.port = settings["port"]
        r.may_meet_itself = may_meet_itself(settings["address"], settings["port"], self._given())
        r.service = settings["service"]
        r.weight = settings["weight"]
        r.max_connections = settings["max_connections"]
        r.slow_start_ms = settings["slow_start_ms"]
        r.is_fallback = bool(settings["is_fallback"])
        self.map.head.reals_top = max(self.map.head.reals_top, <uint32_t>slot + 1)
        atomic_store32(&r.enabled, 1)

    cdef tuple _given(self):
        """Read anew at most once a second: a configuration can have ten thousand real servers."""
        cdef int64_t now = boot_ms()
        if self.given is None or now - self.given_at_ms >= 1000:
            self.given = given_ports()
            self.given_at_ms = now
        return self.given

    def clear_real(self, long slot):
        atomic_store32(&self._real(slot).enabled, 0)

    def set_weight(self, long real, uint32_t weight):
        self._real(real).weight = weight

    def set_admin(self, long real, uint8_t admin):
        cdef Real* r = self._real(real)
        r.drain_expired = 0
        atomic_store32(&r.drain_share, 0)
        if admin == ADMIN_ONLINE and r.admin != ADMIN_ONLINE:
            # It may have come up from its patching long before: to new clients it comes back only now.
            atomic_store64(&r.up_since_ms, boot_ms())
        r.admin = admin

    def set_drain_expired(self, long real, bint expired):
        self._real(real).drain_expired = expired

    def set_drain_share(self, long real, uint32_t share, bint cut):
        """Clients of the first ``share`` parts are drained already; with ``cut`` their connections end, too."""
        if share > STAGGER_PARTS:
            raise ValueError(f"drain share {share}: expected 0 to {STAGGER_PARTS}")
        atomic_store32(&self._real(real).drain_share, share | (STAGGER_CUTS if cut else 0))
        if cut:
            atomic_add32(&self.map.head.cut_epoch, 1)

    def cut(self, long real):
        """End, in every worker, the connections that this real server has now."""
        atomic_add32(&self._real(real).cut_seq, 1)
        atomic_add32(&self.map.head.cut_epoch, 1)

    def set_health(self, long real, uint32_t health, str reason):
        cdef Real* r = self._real(real)
        cdef bytes text = reason.encode()[:REASON_SIZE - 1].decode(errors="ignore").encode()
        cdef int64_t now = boot_ms()
        atomic_store32(&r.health_seq, r.health_seq | 1)
        fence_release()
        if r.health != health:
            # Slow start is for a server that comes back, not for one that was never seen before.
            r.up_since_ms = now if health == HEALTH_UP and r.health == HEALTH_DOWN else 0
            r.health_since_ms = now
            atomic_store32(&r.health, health)
        memset(r.reason, 0, REASON_SIZE)
        memcpy(r.reason, <const char*>text, len(text))
        atomic_store32(&r.health_seq, (r.health_seq | 1) + 1)

    def clear_failures(self, long real):
        atomic_store32(&self._real(real).failures, 0)

    def failures(self, long real):
        cdef Real* r = self._real(real)
        return atomic_load32(&r.failures), r.last_failure_ms, r.last_failure_errno

    def forget_live(self):
        """No connection is open: whoever takes one counts it anew."""
        cdef uint32_t slot
        for slot in range(self.map.head.services_top):
            self.map.services[slot].connections = 0
        for slot in range(self.map.head.reals_top):
            self.map.reals[slot].connections = 0

    def service(self, long slot):
        cdef Service* s = self._service(slot)
        cdef uint64_t packed = <uint64_t>atomic_load64(<int64_t*>&s.reals)
        return {
            "enabled": bool(s.enabled),
            "id": s.id[:16],
            "connections": atomic_load64(&s.connections),
            "reals": [self.map.refs[list_first(packed) + i] for i in range(list_count(packed))],
            "fallback": s.fallback,
        }

    def real(self, long slot):
        cdef Real* r = self._real(slot)
        return {
            "enabled": bool(r.enabled),
            "id": r.id[:16],
            "service": r.service,
            "address": unmapped(r.address[:16]),
            "port": r.port,
            "weight": r.weight,
            "max_connections": r.max_connections,
            "admin": r.admin,
            "drain_expired": bool(r.drain_expired),
            "drain_share": atomic_load32(&r.drain_share) & ~<uint32_t>STAGGER_CUTS,
            "health": r.health,
            "health_since_ms": r.health_since_ms,
            "reason": self._reason(slot),
            "connections": atomic_load64(&r.connections),
            "failures": atomic_load32(&r.failures),
            "last_failure_ms": r.last_failure_ms,
            "last_failure_errno": r.last_failure_errno,
        }

    def _reason(self, long slot):
        cdef Real* r = self._real(slot)
        cdef uint32_t before
        cdef bytes raw = b""
        for _ in range(100):
            before = atomic_load32(&r.health_seq)
            raw = r.reason[:REASON_SIZE]
            fence_acquire()
            if not before & 1 and before == atomic_load32(&r.health_seq):
                break
        return raw.split(b"\0")[0].decode(errors="replace")


def real_tag(bytes id not None):
    """The 32 bits of an id that a stick entry keeps beside the slot, never 0."""
    return int.from_bytes(id[:4], "little") or 1

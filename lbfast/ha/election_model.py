"""The election table as a model for the checker spin (Promela): docs/model/pair.pml, made from the table itself.

A second check beside ``tests/unit/test_ha_election_explore.py``, by another program and with other means: the rows are
generated, what a condition means is written down here once more, and spin visits every state of two boxes and of the
weather between them.  A step is one heartbeat interval; ages are counted in steps and stop at their limit.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lbfast.ha.election import ANY, CONDITIONS, TABLE, USEFUL, Row, Standing

# `i` is this box, `1 - i` the other.  What is known of the other stands in the last heartbeat of it that was heard.
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "is_fit": "(level[i] > 0 && !stopping[i])",
        "is_unfit": "(level[i] == 0 || stopping[i])",
        "is_stopping": "(stopping[i])",
        "is_cut_off": "(cut[i])",
        "is_reachable": "(!cut[i])",
        "is_free": "(probe == FREE)",
        "is_taken": "(probe == TAKEN)",
        "has_listened": "(started[i] >= LISTEN)",
        "has_announced": "(since[i] >= ANNOUNCED)",
        "is_claim_old": "(since[i] >= DEAD)",
        "is_granted": "(heard[i].granted == claim[i])",
        "is_ordered": "(ordered[i] > 0)",
        "is_settled": "(moved[i] >= SETTLED)",
        "outranks": "(2 * own_level(i) + primary(i) > 2 * peer_level(i) + primary(1 - i))",
        "is_outranked": "(2 * own_level(i) + primary(i) < 2 * peer_level(i) + primary(1 - i))",
        "is_fitter": "(level[i] > peer_level(i))",
        "peer_is_unfit": "(peer_level(i) < USEFUL && level[i] >= USEFUL)",
        "peer_is_useful": "(level[i] < USEFUL && peer_level(i) >= USEFUL)",
        "is_unheard": "(!heard[i].hears)",
        "has_no_cause": "(!(ordered[i] > 0) && !(level[i] > peer_level(i)))",
        "peer_has_cause": "(heard[i].ordered || !heard[i].hears || heard[i].level > level[i])",
    }
)

_HEAD = f"""/* Made by `python -m lbfast.ha.election_model docs/model/pair.pml`: edit that.  To run it: docs/ha.md. */

#ifndef LAN
#define LAN 1                  /* address probes are answered */
#endif
#ifndef FAULTS
#define FAULTS 2               /* crashes, stops, restarts, orders, failures, in any order and at any time */
#endif
#ifdef CHANGES                 /* so many changes of the weather; without it, any number */
byte changes;
#define changes_weather changes < CHANGES -> changes++
#else
#define changes_weather true
#endif
#define DEAD 3
#define SUSPECT 2
#define ANNOUNCED 2            /* a heartbeat takes a whole step here */
#define LISTEN 3
#define ORDER 5
#define SETTLED 4
#define FORGET 5               /* an answer to an address probe counts for so long (ha/takeover.py) */
#define BOUND 18               /* steps of unchanging weather after which one box must be active */
#define USEFUL {USEFUL}

mtype = {{ PASSIVE, CLAIMING, ACTIVE, SILENT, LEAVING, NONE, FREE, TAKEN }};

typedef Beat {{
  bool valid; mtype standing; byte level; bool hears; bool leaving; bool ordered; byte claim; byte granted
}};

bool alive[2]; mtype standing[2]; byte level[2]; bool cut[2]; bool stopping[2];
byte since[2]; byte started[2]; byte quiet[2]; byte ordered[2]; byte moved[2]; byte claim[2]; byte taken[2];
Beat heard[2];                 /* the other's last one, as this box knows it */
Beat flying[2];                /* this box's, on its way */
bool lost[2];                  /* whether this box's heartbeats are lost at present */
byte faults, still, moves;
mtype probe, peer;

#define primary(i) (i == 0 -> 1 : 0)
#define own_level(i) (stopping[i] -> 0 : level[i])
#define peer_level(i) (heard[i].valid -> heard[i].level : 0)
#define serves(i) (alive[i] && standing[i] == ACTIVE && !cut[i])
#define is_able(i) (alive[i] && level[i] > 0 && !cut[i] && !stopping[i])
#define is_useful(i) (serves(i) && level[i] > 0)
#define asks(i) (alive[i] && standing[i] != ACTIVE && level[i] > 0 && !cut[i] && !stopping[i] && \\
  (quiet[i] >= SUSPECT || standing[i] == CLAIMING && heard[i].valid && !heard[i].hears))
#define older(age, most) age = (age < most -> age + 1 : most)
#define copy(to, from) to.valid = from.valid; to.standing = from.standing; to.level = from.level; \\
  to.hears = from.hears; to.leaving = from.leaving; to.ordered = from.ordered; \\
  to.claim = from.claim; to.granted = from.granted
#define forget(beat) beat.valid = false; beat.standing = PASSIVE; beat.level = 0; beat.hears = false; \\
  beat.leaving = false; beat.ordered = false; beat.claim = 0; beat.granted = 0

inline see_peer(i) {{
  if
  :: !heard[i].valid || quiet[i] >= DEAD -> peer = SILENT
  :: else -> peer = (heard[i].leaving -> LEAVING : heard[i].standing)
  fi
}}

inline ask_network(i) {{
  if
  :: !asks(i) -> probe = NONE; taken[i] = 0
  :: else ->
     if
     :: LAN && serves(1 - i) -> taken[i] = FORGET
     :: LAN && !serves(1 - i) && asks(1 - i) && primary(1 - i) -> taken[i] = FORGET
     :: else -> taken[i] = (taken[i] > 0 -> taken[i] - 1 : 0)
     fi;
     probe = (taken[i] > 0 -> TAKEN : FREE)
  fi
}}

inline become(i, then) {{
  if
  :: then == ACTIVE || standing[i] == ACTIVE -> moved[i] = 0; moves = (moves < 9 -> moves + 1 : 9)
  :: else
  fi;
  if
  :: then == CLAIMING -> claim[i] = claim[i] % 9 + 1
  :: else -> ordered[i] = 0
  fi;
  standing[i] = then; since[i] = 0
}}
"""

_TAIL = """
inline act(i) {
  d_step {
    if
    :: alive[i] ->
       older(since[i], DEAD); older(started[i], LISTEN); older(quiet[i], DEAD); older(moved[i], SETTLED);
       ordered[i] = (ordered[i] > 0 -> ordered[i] - 1 : 0);
       if
       :: flying[1 - i].valid && !lost[1 - i] ->
          if
          :: flying[1 - i].standing == ACTIVE && (!heard[i].valid || heard[i].standing != ACTIVE) -> moved[i] = 0
          :: else
          fi;
          copy(heard[i], flying[1 - i]); quiet[i] = 0
       :: else
       fi;
       ask_network(i);
       decide(i); decide(i); decide(i);
       see_peer(i);
       flying[i].valid = true; flying[i].standing = standing[i]; flying[i].level = own_level(i);
       flying[i].hears = (peer != SILENT); flying[i].leaving = (stopping[i] && standing[i] == PASSIVE);
       flying[i].ordered = (ordered[i] > 0 && standing[i] == CLAIMING);
       flying[i].claim = (standing[i] == CLAIMING -> claim[i] : 0);
       flying[i].granted = (peer == CLAIMING && standing[i] == PASSIVE -> heard[i].claim : 0);
       peer = NONE; probe = NONE
    :: else -> forget(flying[i])
    fi
  }
}

inline reset(i) {              /* its claims go on counting: they begin with the number of its life */
  standing[i] = PASSIVE; since[i] = 0; started[i] = 0; quiet[i] = 0; ordered[i] = 0; moved[i] = SETTLED;
  taken[i] = 0; cut[i] = false; stopping[i] = false; level[i] = 4;
  forget(heard[i]); forget(flying[i])
}

inline fault(i) {
  if
  :: alive[i] -> alive[i] = false; reset(i)                       /* power loss */
  :: !alive[i] -> reset(i); alive[i] = true                       /* and back */
  :: alive[i] && !stopping[i] -> stopping[i] = true               /* a clean stop begins */
  :: alive[i] && level[i] != 0 -> level[i] = 0                    /* its workers stand still */
  :: alive[i] && level[i] != 3 && !cut[i] -> level[i] = 3         /* it is less well */
  :: alive[i] && level[i] != 4 -> level[i] = 4; cut[i] = false    /* it is well again */
  :: alive[i] && !cut[i] -> cut[i] = true; level[i] = 1           /* its link to the clients is cut */
  :: alive[i] && standing[i] != ACTIVE && level[i] >= USEFUL && level[i] >= peer_level(i) ->
     ordered[i] = ORDER                                           /* the takeover is ordered (ha/verbs.py checks) */
  fi
}

inline rules() {
  d_step {
    /* Never two that clients can reach. */
    assert(!LAN || !(serves(0) && serves(1)));
    /* Where probes are not answered: not for longer than it takes to hear each other. */
    assert(!(serves(0) && serves(1)) || lost[0] || lost[1] || still < 3);
    /* No gap longer than the bound, also with heartbeats lost for good, one way or both. */
    assert(still < BOUND || !LAN && lost[0] && lost[1] || !(is_able(0) || is_able(1)) || is_useful(0) || is_useful(1));
    /* No flapping in unchanging weather: an order and a failure at once are three changes of hands, then quiet. */
    assert(!LAN && (lost[0] || lost[1]) || moves <= 6)
  }
}

init {
  atomic {
    reset(0); reset(1); alive[0] = true; alive[1] = true
  };
  do
  :: atomic {
       if                                              /* the weather: it stays, or it changes */
       :: true -> still = (still < BOUND -> still + 1 : BOUND)
       :: changes_weather; lost[0] = !lost[0]; still = 0; moves = 0
       :: changes_weather; lost[1] = !lost[1]; still = 0; moves = 0
       :: changes_weather; lost[0] = !lost[0]; lost[1] = !lost[1]; still = 0; moves = 0
       :: faults < FAULTS -> faults++; still = 0; moves = 0; fault(0)
       :: faults < FAULTS -> faults++; still = 0; moves = 0; fault(1)
       fi;
       if
       :: true -> act(0); act(1)
       :: true -> act(1); act(0)
       fi;
       rules()
     }
  od
}
"""


def render_model() -> str:
    """The whole model."""
    missing = set(CONDITIONS) - set(MEANINGS)
    if missing:
        raise ValueError(f"no meaning in Promela for {', '.join(sorted(missing))}")
    return _HEAD + "\n" + _render_decide() + _TAIL


def _render_decide() -> str:
    """One step through the table: the first row that applies."""
    lines = ["inline decide(i) {", "  see_peer(i);", "  if"]
    for standing, rows in TABLE.items():
        lines += [f"  :: standing[i] == {standing.name} ->"]
        lines += [f"     {line}" for line in _render_rows(rows)]
    return "\n".join([*lines, "  fi", "}", ""])


def _render_rows(rows: tuple[Row, ...]) -> list[str]:
    if not rows:
        return ["skip"]
    first, rest = rows[0], rows[1:]
    inner = [f"   {line}" for line in _render_rows(rest)]
    return ["if", f":: {_render_row(first)}", ":: else ->", *inner, "fi"]


def _render_row(row: Row) -> str:
    peers = [] if row.peers == ANY else ["(" + " || ".join(f"peer == {peer.name}" for peer in row.peers) + ")"]
    conditions = " && ".join([*peers, *(MEANINGS[name] for name in row.when)])
    return f"{conditions} -> become(i, {Standing(row.then).name})  /* {row.because} */"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_model())

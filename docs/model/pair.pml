/* Made by `python -m lbfast.ha.election_model docs/model/pair.pml`: edit that.  To run it: docs/ha.md. */

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
#define USEFUL 2

mtype = { PASSIVE, CLAIMING, ACTIVE, SILENT, LEAVING, NONE, FREE, TAKEN };

typedef Beat {
  bool valid; mtype standing; byte level; bool hears; bool leaving; bool ordered; byte claim; byte granted
};

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
#define asks(i) (alive[i] && standing[i] != ACTIVE && level[i] > 0 && !cut[i] && !stopping[i] && \
  (quiet[i] >= SUSPECT || standing[i] == CLAIMING && heard[i].valid && !heard[i].hears))
#define older(age, most) age = (age < most -> age + 1 : most)
#define copy(to, from) to.valid = from.valid; to.standing = from.standing; to.level = from.level; \
  to.hears = from.hears; to.leaving = from.leaving; to.ordered = from.ordered; \
  to.claim = from.claim; to.granted = from.granted
#define forget(beat) beat.valid = false; beat.standing = PASSIVE; beat.level = 0; beat.hears = false; \
  beat.leaving = false; beat.ordered = false; beat.claim = 0; beat.granted = 0

inline see_peer(i) {
  if
  :: !heard[i].valid || quiet[i] >= DEAD -> peer = SILENT
  :: else -> peer = (heard[i].leaving -> LEAVING : heard[i].standing)
  fi
}

inline ask_network(i) {
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
}

inline become(i, then) {
  if
  :: then == ACTIVE || standing[i] == ACTIVE -> moved[i] = 0; moves = (moves < 9 -> moves + 1 : 9)
  :: else
  fi;
  if
  :: then == CLAIMING -> claim[i] = claim[i] % 9 + 1
  :: else -> ordered[i] = 0
  fi;
  standing[i] = then; since[i] = 0
}

inline decide(i) {
  see_peer(i);
  if
  :: standing[i] == PASSIVE ->
     if
     :: (peer == SILENT) && (level[i] > 0 && !stopping[i]) && (!cut[i]) && (started[i] >= LISTEN) && (probe == FREE) -> become(i, CLAIMING)  /* the peer is silent and nobody has the addresses */
     :: else ->
        if
        :: (peer == LEAVING) && (level[i] > 0 && !stopping[i]) -> become(i, CLAIMING)  /* the peer has handed over */
        :: else ->
           if
           :: (peer == PASSIVE) && (level[i] > 0 && !stopping[i]) && (ordered[i] > 0) -> become(i, CLAIMING)  /* takeover was ordered */
           :: else ->
              if
              :: (peer == PASSIVE) && (level[i] > 0 && !stopping[i]) && (2 * own_level(i) + primary(i) > 2 * peer_level(i) + primary(1 - i)) -> become(i, CLAIMING)  /* neither box is active and this one ranks higher */
              :: else ->
                 if
                 :: (peer == ACTIVE) && (level[i] > 0 && !stopping[i]) && (ordered[i] > 0) -> become(i, CLAIMING)  /* takeover was ordered */
                 :: else ->
                    if
                    :: (peer == ACTIVE) && (level[i] > 0 && !stopping[i]) && (peer_level(i) < USEFUL && level[i] >= USEFUL) -> become(i, CLAIMING)  /* the active peer cannot serve */
                    :: else ->
                       if
                       :: (peer == ACTIVE) && (level[i] > 0 && !stopping[i]) && (level[i] > peer_level(i)) && (moved[i] >= SETTLED) -> become(i, CLAIMING)  /* the active peer serves less well */
                       :: else ->
                          skip
                       fi
                    fi
                 fi
              fi
           fi
        fi
     fi
  :: standing[i] == CLAIMING ->
     if
     :: (level[i] == 0 || stopping[i]) -> become(i, PASSIVE)  /* this box cannot serve */
     :: else ->
        if
        :: (peer == SILENT) && (cut[i]) -> become(i, PASSIVE)  /* this box is cut off */
        :: else ->
           if
           :: (peer == SILENT) && (probe == TAKEN) -> become(i, PASSIVE)  /* another machine answers for the addresses */
           :: else ->
              if
              :: (peer == SILENT) && (probe == FREE) && (since[i] >= ANNOUNCED) -> become(i, ACTIVE)  /* the peer is silent and nobody has the addresses */
              :: else ->
                 if
                 :: (peer == LEAVING) -> become(i, ACTIVE)  /* the peer has handed over */
                 :: else ->
                    if
                    :: (peer == PASSIVE) && (heard[i].granted == claim[i]) -> become(i, ACTIVE)  /* the peer has let go */
                    :: else ->
                       if
                       :: (peer == PASSIVE) && (!heard[i].hears) && (probe == FREE) && (since[i] >= ANNOUNCED) -> become(i, ACTIVE)  /* the peer does not hear this box, and nobody has the addresses */
                       :: else ->
                          if
                          :: (peer == PASSIVE) && (since[i] >= DEAD) -> become(i, PASSIVE)  /* the peer did not answer the claim */
                          :: else ->
                             if
                             :: (peer == CLAIMING) && (2 * own_level(i) + primary(i) < 2 * peer_level(i) + primary(1 - i)) -> become(i, PASSIVE)  /* the peer claims too and ranks higher */
                             :: else ->
                                if
                                :: (peer == ACTIVE) && (!(ordered[i] > 0) && !(level[i] > peer_level(i))) -> become(i, PASSIVE)  /* the peer is active */
                                :: else ->
                                   if
                                   :: (peer == ACTIVE) && (since[i] >= DEAD) -> become(i, PASSIVE)  /* the active peer did not let go */
                                   :: else ->
                                      skip
                                   fi
                                fi
                             fi
                          fi
                       fi
                    fi
                 fi
              fi
           fi
        fi
     fi
  :: standing[i] == ACTIVE ->
     if
     :: (stopping[i]) -> become(i, PASSIVE)  /* this box stops */
     :: else ->
        if
        :: (peer == SILENT) && (cut[i]) -> become(i, PASSIVE)  /* this box is cut off from the network and from its peer */
        :: else ->
           if
           :: (peer == SILENT) && (level[i] == 0 || stopping[i]) -> become(i, PASSIVE)  /* this box cannot serve, and would not hear the peer's claim */
           :: else ->
              if
              :: (peer == PASSIVE) && (level[i] < USEFUL && peer_level(i) >= USEFUL) -> become(i, PASSIVE)  /* this box cannot serve, and the peer can */
              :: else ->
                 if
                 :: (peer == CLAIMING) && (heard[i].ordered || !heard[i].hears || heard[i].level > level[i]) -> become(i, PASSIVE)  /* the peer takes over */
                 :: else ->
                    if
                    :: (peer == ACTIVE) && (2 * own_level(i) + primary(i) < 2 * peer_level(i) + primary(1 - i)) -> become(i, PASSIVE)  /* both boxes were active and the peer ranks higher */
                    :: else ->
                       if
                       :: (peer == ACTIVE) && (!heard[i].hears) -> become(i, PASSIVE)  /* both boxes were active and the peer does not hear this one */
                       :: else ->
                          skip
                       fi
                    fi
                 fi
              fi
           fi
        fi
     fi
  fi
}

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

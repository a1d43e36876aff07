"""The table of verbs: name, where its function lives, one line of help, and what its words mean to completion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """``places`` are the kinds of its positional words; ``options`` maps each option to the kind of its value."""

    path: tuple[str, ...]
    target: str
    help: str
    places: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


JSON = ("--json", "")
CLIENT = ("--client", "client")
REASON = ("--reason", "text")
REMOVED = ("--removed", "text")
AGAINST = ("--against", "text")

_READING = "lbfast.cli.reading"
_CHANGING = "lbfast.cli.changing"
_RUNNING = "lbfast.cli.running"
_COMMITTING = "lbfast.cli.committing"
_EDITING = "lbfast.cli.editing"
_KEEPING = "lbfast.cli.keeping"
_PAIRING = "lbfast.cli.pairing"
_PASSWORDS = "lbfast.cli.passwords"

VERBS: tuple[Verb, ...] = (
    Verb(("run",), f"{_RUNNING}:run", "Run the load balancer in the foreground.", (), (("--config", "file"),)),
    Verb(("check",), f"{_RUNNING}:check", "Check a configuration file and report every problem.", ("file",), (JSON,)),
    Verb(
        ("demo",),
        f"{_RUNNING}:demo",
        "Three HTTPS servers behind lbfast, to try it out.",
        (),
        (("--port", "text"), ("--web-port", "text")),
    ),
    Verb(("overview",), f"{_READING}:overview", "All virtual services and their real servers.", (), (JSON,)),
    Verb(
        ("drain",),
        "lbfast.cli.draining:drain",
        "Send a real server no new clients; with --plan, only say what that would mean.",
        ("service", "real"),
        (("--plan", ""), ("--deadline", "text"), ("--cut", ""), ("--stagger", "text"), REASON, JSON),
    ),
    Verb(
        ("wait",),
        "lbfast.cli.draining:wait",
        "Wait until nobody is on a drained real server.",
        ("service", "real"),
        (("--safe-to-patch", ""), ("--timeout", "text"), JSON),
    ),
    Verb(
        ("halt",),
        f"{_CHANGING}:halt",
        "Take a real server out and cut its connections.",
        ("service", "real"),
        (REASON, JSON),
    ),
    Verb(("online",), f"{_CHANGING}:online", "Put a real server back to work.", ("service", "real"), (REASON, JSON)),
    Verb(
        ("weight",),
        f"{_CHANGING}:weight",
        "Set the weight of a real server (0 to 256).",
        ("service", "real", "text"),
        (JSON,),
    ),
    Verb(
        ("persistence", "show"),
        "lbfast.cli.persistence:show",
        "Which client belongs to which real server.",
        ("service",),
        (CLIENT, ("--limit", "text"), JSON),
    ),
    Verb(
        ("persistence", "clear"),
        "lbfast.cli.persistence:clear",
        "Forget clients, so that they are placed anew.",
        ("service",),
        (CLIENT, ("--real", "real"), JSON),
    ),
    Verb(
        ("persistence", "pin"),
        "lbfast.cli.persistence:pin",
        "Bind a client to a real server for good.",
        ("service", "client", "real"),
        (JSON,),
    ),
    Verb(
        ("connections",),
        f"{_READING}:connections",
        "The open connections of a virtual service.",
        ("service",),
        (CLIENT, JSON),
    ),
    Verb(
        ("explain",), f"{_READING}:explain", "Where a client goes, since when, and why.", ("service", "client"), (JSON,)
    ),
    Verb(
        ("events",),
        f"{_READING}:events",
        "What happened last; with --follow, what happens now.",
        (),
        (("--follow", ""), ("--limit", "text"), JSON),
    ),
    Verb(
        ("health",),
        f"{_READING}:health",
        "The last health checks of a real server, with reasons; --test makes one now.",
        ("service", "real"),
        (("--test", ""), ("--candidate", ""), JSON),
    ),
    Verb(
        ("statistics",),
        f"{_READING}:statistics",
        "What was counted: accepts, limits, shortages, bytes.",
        (),
        (JSON,),
    ),
    Verb(
        ("plan",),
        f"{_COMMITTING}:plan",
        "What a commit of a file would do.",
        ("file",),
        (REMOVED, AGAINST, JSON),
    ),
    Verb(
        ("commit",),
        f"{_COMMITTING}:commit",
        "Make a file the running configuration, live.",
        ("file",),
        (("--confirm", "text"), REASON, REMOVED, AGAINST, JSON),
    ),
    Verb(("confirm",), f"{_COMMITTING}:confirm", "Keep what was committed with --confirm."),
    Verb(("revert",), f"{_COMMITTING}:revert", "Commit an earlier version again.", ("text",), (REASON, JSON)),
    Verb(("history",), f"{_COMMITTING}:history", "The versions that ran: who, when, why.", (), (JSON,)),
    Verb(("diff",), f"{_COMMITTING}:diff", "What differs between two versions.", ("text", "text"), (JSON,)),
    Verb(("ha", "status"), f"{_PAIRING}:status", "Role, state and readiness of the pair.", (), (JSON,)),
    Verb(
        ("ha", "pair"),
        f"{_PAIRING}:pair",
        "Make a clustered pair with another box.",
        (),
        (("--local", "text"), ("--peer", "text"), ("--password-file", "file"), ("--overwrite", "")),
    ),
    Verb(("ha", "unpair"), f"{_PAIRING}:unpair", "Break the clustered pair.", (), (("--force", ""),)),
    Verb(("ha", "takeover"), f"{_PAIRING}:takeover", "Make this box the active one.", (), (REASON, ("--force", ""))),
    Verb(("ha", "maintenance"), f"{_PAIRING}:maintenance", "Keep this box from taking over.", ("text",), (REASON,)),
    Verb(("ha", "path"), f"{_PAIRING}:path", "Further ways of the heartbeats.", ("text", "text", "text"), ()),
    Verb(
        ("ha", "password"),
        f"{_PAIRING}:password",
        "Let it be made a secondary.",
        (),
        (("--password-file", "file"),),
    ),
    Verb(
        ("restart",),
        "lbfast.cli.processes:restart",
        "Replace a process of lbfast by a new one; no connection is cut.",
        ("text", "text"),
    ),
    Verb(
        ("upgrade",),
        "lbfast.cli.processes:upgrade",
        "Run the newly installed program, with every connection kept.",
        (),
        (("--within", "text"), JSON),
    ),
    Verb(
        ("passwd",),
        f"{_PASSWORDS}:passwd",
        "Set a password of the web interface.",
        ("text",),
        (("--password-file", "file"), ("--setup", ""), ("--no-totp", "")),
    ),
    Verb(
        ("apikey", "create"),
        f"{_PASSWORDS}:create",
        "Make an API key; it is shown once.",
        (),
        (("--role", "text"), ("--expires", "text"), ("--label", "text"), JSON),
    ),
    Verb(("apikey", "list"), f"{_PASSWORDS}:list_keys", "The API keys, without their secrets.", (), (JSON,)),
    Verb(("apikey", "revoke"), f"{_PASSWORDS}:revoke", "End an API key at once.", ("text",)),
    Verb(("candidate", "show"), f"{_EDITING}:show", "Who changed what since the last commit.", (), (JSON,)),
    Verb(("candidate", "diff"), f"{_EDITING}:diff", "The candidate against the running configuration.", (), (JSON,)),
    Verb(("candidate", "plan"), f"{_EDITING}:plan", "What a commit of the candidate would do.", (), (REMOVED, JSON)),
    Verb(
        ("candidate", "set"),
        f"{_EDITING}:set_key",
        "Set or take out one key.",
        ("text", "text"),
        (("--service", "service"), ("--real", "real"), JSON),
    ),
    Verb(("candidate", "load"), f"{_EDITING}:load", "Make a file the candidate.", ("file",), (JSON,)),
    Verb(
        ("candidate", "commit"),
        f"{_EDITING}:commit",
        "Make the candidate the running configuration, live.",
        (),
        (("--confirm", "text"), REASON, REMOVED, ("--overwrite", ""), JSON),
    ),
    Verb(("candidate", "discard"), f"{_EDITING}:discard", "Throw its changes away."),
    Verb(
        ("backup",),
        f"{_KEEPING}:backup",
        "Save everything that makes this appliance to one file.",
        ("file",),
        (("--passphrase-file", "file"), REASON, JSON),
    ),
    Verb(
        ("restore",),
        f"{_KEEPING}:restore",
        "Bring back what a backup holds.",
        ("file",),
        (("--dry-run", ""), ("--passphrase-file", "file"), ("--confirm", "text"), JSON),
    ),
    Verb(("support",), f"{_KEEPING}:support", "Write an archive for those who help.", ("file",), (("--mask", ""),)),
    Verb(
        ("logs",),
        f"{_KEEPING}:logs",
        "Search the kept log.",
        (),
        (
            *(("--kind", "text"), ("--since", "text"), ("--until", "text"), CLIENT, ("--service", "service")),
            *(("--real", "real"), ("--reason", "text"), ("--text", "text"), ("--limit", "text"), JSON),
        ),
    ),
    Verb(
        ("series",),
        f"{_KEEPING}:series",
        "Graphs as figures, from an hour to a year back.",
        (),
        (("--service", "service"), ("--real", "real"), ("--range", "text"), JSON),
    ),
    Verb(
        ("availability",),
        f"{_KEEPING}:availability",
        "How much of the time each real server was up.",
        (),
        (("--range", "text"), JSON),
    ),
    Verb(("alerts", "show"), f"{_KEEPING}:alerts_show", "What came of the last alerts of each way.", (), (JSON,)),
    Verb(("alerts", "test"), f"{_KEEPING}:alerts_test", "Send a test alert by every way.", (), (JSON,)),
    Verb(("top",), "lbfast.cli.top:top", "A live screen of services, servers and events."),
    Verb(("version",), f"{_READING}:version", "The version of this program and of the running lbfast.", (), (JSON,)),
    Verb(("schema",), f"{_RUNNING}:schema", "The JSON schema of the configuration."),
    Verb(("completion",), "lbfast.cli.completion:completion", "Print a shell completion script.", ("shell",)),
)

GROUPS: dict[str, str] = {
    "persistence": "See and change which client belongs to which real server.",
    "ha": "The clustered pair.",
    "apikey": "Keys with which programs use the API.",
    "candidate": "Edit the configuration step by step, then commit it as a whole.",
    "alerts": "Who is told when something is wrong.",
}

"""Shell completion: the scripts for bash, zsh and fish, and the hidden verb that they ask."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from lbfast.cli import out
from lbfast.cli.errors import OK

_BASH = r"""# bash completion for lbfast: lbfast completion bash > ~/.local/share/bash-completion/completions/lbfast
_lbfast() {
    local reply
    COMPREPLY=()
    reply=$("$1" __complete line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if (( $? == 10 )); then
        compopt -o default
    elif [[ -n $reply ]]; then
        mapfile -t COMPREPLY <<< "$reply"
    fi
}
complete -F _lbfast lbfast
"""

_ZSH = r"""#compdef lbfast
# zsh completion for lbfast: lbfast completion zsh > "${fpath[1]}/_lbfast"
_lbfast() {
    local reply
    reply=$("${words[1]}" __complete words "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $? == 10 )); then
        _files
    elif [[ -n $reply ]]; then
        compadd -- "${(@f)reply}"
    fi
}
if [[ "$funcstack[1]" == "_lbfast" ]]; then
    _lbfast "$@"
else
    compdef _lbfast lbfast
fi
"""

_FISH = r"""# fish completion for lbfast: lbfast completion fish > ~/.config/fish/completions/lbfast.fish
function __lbfast_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l reply ($words[1] __complete words $words[2..-1] "$current" 2>/dev/null)
    if test $status -eq 10
        __fish_complete_path "$current"
    else
        string join \n -- $reply
    end
end
complete -c lbfast -f -a '(__lbfast_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_FILES = 10  # exit code of the hidden verb: complete file names
_PATIENCE = 2.0  # seconds to wait for labels; a shell must not hang on TAB


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL", help="bash, zsh or fish.")], /
) -> int:
    """Print a completion script; it completes verbs, options and the labels of the running lbfast."""
    out.line(_SCRIPTS[shell].rstrip("\n"))
    return OK


def answer(arguments: list[str]) -> int:
    """The hidden verb: ``line TEXT`` (bash, candidates quoted) or ``words WORD...`` (zsh and fish quote themselves)."""
    from lbfast.cli.complete_words import quoted, split_line, unquote, wanted

    style, rest = arguments[0], arguments[1:]
    if style == "line":
        before, raw = split_line(rest[0])
        before = before[1:]
    else:
        before, raw = [unquote(word) for word in rest[:-1]], rest[-1] if rest else ""
    current = unquote(raw)
    want = wanted(before, current)
    if want.kind == "file":
        return _FILES
    for candidate in _candidates(want.kind, want.words, want.service):
        if candidate.startswith(current) and "\n" not in candidate:
            out.line(quoted(candidate, raw) if style == "line" else candidate)
    return OK


def _candidates(kind: str, words: tuple[str, ...], service: str) -> list[str]:
    if kind == "shell":
        return list(_SCRIPTS)
    if kind in {"service", "real"}:
        return _labels(kind, service)
    return list(words)


def _labels(kind: str, service: str) -> list[str]:
    """Labels of the running lbfast; none when it cannot be asked: completion is silent."""
    from lbfast.cli.labels import reals_of, services_of
    from lbfast.control.client import Client, ControlError, ControlUnavailable

    try:
        overview = Client(timeout=_PATIENCE).call("overview")
    except (ControlError, ControlUnavailable):
        return []
    return services_of(overview) if kind == "service" else reals_of(overview, service)

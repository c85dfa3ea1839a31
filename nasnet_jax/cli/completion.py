"""`nasnet-jax completion SHELL`: how bash and zsh complete the commands, their
flags and the configs that are shipped."""

import sys

from nasnet_jax.cli import shipped

_BASH = """\
# eval "$(nasnet-jax completion bash)"
_nasnet_jax() {
  local word="${COMP_WORDS[COMP_CWORD]}" flags="" configs=""
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "%(commands)s completion" -- "$word"))
    return
  fi
  case "${COMP_WORDS[1]}" in
%(cases)s
    completion) COMPREPLY=($(compgen -W "bash zsh" -- "$word")); return ;;
  esac
  if [[ $word == "=" || ${COMP_WORDS[COMP_CWORD-1]} == "=" ]]; then
    local at=$((COMP_CWORD - 1))
    [[ $word == "=" ]] || at=$((COMP_CWORD - 2))
    [[ $word == "=" ]] && word=""
    if [[ ${COMP_WORDS[at]} == "--config" ]]; then
      COMPREPLY=($(compgen -W "$configs" -- "$word"))
    fi
    [[ -n ${COMPREPLY[*]} ]] || COMPREPLY=($(compgen -f -- "$word"))
    return
  fi
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags --traceback --help" -- "$word"))
    [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -F _nasnet_jax nasnet-jax
"""


# zsh gives a function --config=x as one word, and has no compopt.
_ZSH = """\
# eval "$(nasnet-jax completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_nasnet_jax() {
  local -a flags configs
  if (( CURRENT == 2 )); then
    compadd -- %(commands)s completion
    return
  fi
  case $words[2] in
%(cases)s
    completion) compadd -- bash zsh; return ;;
  esac
  if [[ $PREFIX == --*=* || $words[CURRENT-1] == --config ]]; then
    [[ $PREFIX == --config=* || $words[CURRENT-1] == --config ]] \\
      || configs=()
    compset -P '*='
    compadd -a configs
    _files
    return
  fi
  if [[ $PREFIX == -* ]]; then
    compadd -S '' -- ${(M)flags:#*=}
    compadd -- ${flags:#*=} --traceback --help
  else
    _files
  fi
}
compdef _nasnet_jax nasnet-jax
"""


def show(arguments: list[str], commands: dict) -> int:
  """Prints the script for the shell that is asked for; the exit code.

  Args:
    arguments: what was typed behind the word.
    commands: `commands.COMMANDS`.
  """
  shells = {"bash": (_BASH, '{}="{}"'), "zsh": (_ZSH, "{}=({})")}
  if len(arguments) != 1 or arguments[0] not in shells:
    print(
      'error: give a shell: eval "$(nasnet-jax completion bash)", or zsh',
      file=sys.stderr,
    )
    return 2
  script, words = shells[arguments[0]]
  jobs = shipped.of_jobs()
  cases = []
  for name, found in commands.items():
    configs = jobs[found.job] if found.job else shipped.names()
    flags = words.format("flags", " ".join(found.flags))
    known = words.format("configs", " ".join(configs))
    cases.append(f"    {name}) {flags}; {known} ;;")
  values = {
    "commands": " ".join(commands),
    "cases": "\n".join(cases),
  }
  print(script % values, end="")
  return 0

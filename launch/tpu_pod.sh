#!/usr/bin/env bash
# A job on a Cloud TPU slice of any size, from your own machine.
#
#   launch/tpu_pod.sh [--dry-run] create|install|run|fetch|delete|all [FLAGS]
#
#   create   asks for the slice (a queued resource) and waits until it is there
#   install  copies this repository's HEAD to all workers, with an environment
#   run      launch/main.py with these FLAGS on all workers, until it ends
#   fetch    copies the run's folder here, into runs/
#   delete   gives the slice back
#   all      all of these; a slice that was preempted is asked for again and the
#            run goes on, until it is done; the slice is given back at any end
#
# --dry-run prints each command in place of running it. Settings are environment
# variables: NAME, ZONE, TYPE, RUNTIME, SPOT, SHARE, RUN; see below and
# docs/pods.md. gcloud must be logged in and know the project.
set -euo pipefail
cd "$(dirname "$0")/.."

NAME="${NAME:-nasnet-jax}"
ZONE="${ZONE:-us-west4-a}"
TYPE="${TYPE:-v5litepod-16}"           # v5p-..., v6e-...
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}" # v2-alpha-tpuv5, v2-alpha-tpuv6e
SPOT="${SPOT:-1}"                      # 1: cheap, and may be taken away
SHARE="${SHARE:-}"                     # HOST:/PATH of an NFS that workers mount
RUN="${RUN:-run}"                      # name of the run's folder on the share
POLL="${POLL:-30}"                     # seconds between looks at the slice
TRIES="${TRIES:-3}"                    # failures in a row that are no preemption

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }

say() { echo "tpu_pod: $*" >&2; }

# Runs a command, or prints it.
do_it() {
  if ((dry_run)); then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

resources() { do_it gcloud compute tpus queued-resources "$@" --zone="$ZONE"; }

# on_workers WHICH COMMAND: a shell command on one worker, or on "all".
on_workers() {
  do_it gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" \
    --worker="$1" --command="$2"
}

# ACTIVE, SUSPENDED, FAILED, ...; NONE only where there is no such resource, or
# a slice would be asked for twice; UNKNOWN where gcloud does not say.
state() {
  local text
  if text="$(gcloud compute tpus queued-resources describe "$NAME" \
    --zone="$ZONE" --format='value(state.state)' 2>&1)"; then
    echo "$text"
  elif [[ "$text" == *NOT_FOUND* || "$text" == *"not found"* ]]; then
    echo NONE
  else
    say "cannot tell the state of $NAME: $text"
    echo UNKNOWN
  fi
}

create() {
  local flags=(--node-id="$NAME" --accelerator-type="$TYPE"
    --runtime-version="$RUNTIME")
  if [[ "$SPOT" == 1 ]]; then flags+=(--spot); fi
  resources create "$NAME" "${flags[@]}" && wait_until_active
}

wait_until_active() {
  if ((dry_run)); then return; fi
  local now before=""
  while true; do
    now="$(state)"
    [[ "$now" == "$before" ]] || say "the slice is $now"
    before="$now"
    case "$now" in
    ACTIVE) return ;;
    FAILED | SUSPENDED | NONE) return 1 ;;
    esac
    sleep "$POLL"
  done
}

install() {
  local folder
  folder="$(mktemp -d)"
  send "$folder/nasnet_jax.tar.gz" && on_workers all "set -e
    sudo apt-get install -qq -y nfs-common >/dev/null
    sudo mkdir -p /mnt/share
    mountpoint -q /mnt/share || sudo mount -t nfs '$SHARE' /mnt/share
    mkdir -p nasnet_jax
    tar -xzf nasnet_jax.tar.gz -C nasnet_jax
    cd nasnet_jax
    python3 -m pip install -q --user uv  # their own Python is too old
    ~/.local/bin/uv venv -q --clear --python 3.13 .venv
    ~/.local/bin/uv pip install -q --python .venv -e '.[tpu]'"
  local code=$?
  rm -rf "$folder"
  return "$code"
}

send() {
  do_it git archive --format=tar.gz --output="$1" HEAD &&
    do_it gcloud compute tpus tpu-vm scp "$1" "$NAME:" --zone="$ZONE" \
      --worker=all
}

# First, what is left of a run whose connection broke saves and ends. Compiled
# programs lie on the share, so that a new slice need not compile.
run() {
  on_workers all "pkill -TERM -f '[l]aunch/main[.]py' || true
    while pgrep -f '[l]aunch/main[.]py' >/dev/null; do sleep 1; done" &&
    on_workers all "cd nasnet_jax &&
    JAX_COMPILATION_CACHE_DIR=/mnt/share/cache \
      .venv/bin/python launch/main.py $(printf '%q ' "$@")\
      --config.hosts.coordinator=auto --workdir='/mnt/share/$RUN'"
}

fetch() {
  do_it mkdir -p runs &&
    do_it gcloud compute tpus tpu-vm scp "$NAME:/mnt/share/$RUN" runs/ \
      --zone="$ZONE" --worker=0 --recurse
}

delete() { resources delete "$NAME" --force --quiet; }

# Until the run is done. What went wrong while the slice was there, or could
# not be asked for, is a failure, and too many in a row end this.
all() {
  if ((dry_run)); then
    create && install && run "$@" && fetch && delete
    return
  fi
  trap 'say "the slice may still be there: $0 delete gives it back"' EXIT
  local failures=0
  while ((failures < TRIES)); do
    if ready && install && run "$@" && fetch; then
      delete
      trap - EXIT
      return
    fi
    case "$(state)" in
    SUSPENDING | SUSPENDED | FAILED | DELETING) failures=0 ;;
    *)
      failures=$((failures + 1))
      say "that failed, and was no preemption: $failures of $TRIES"
      ;;
    esac
    sleep "$POLL"
  done
  delete
  trap - EXIT
  return 1
}

# Sees to it that there is a slice, whatever became of an earlier one.
ready() {
  case "$(state)" in
  ACTIVE) ;;
  NONE) create ;;
  UNKNOWN) return 1 ;;
  SUSPENDING | DELETING)
    sleep "$POLL"
    ready
    ;;
  SUSPENDED | FAILED)
    say "the slice was taken away: asking for another one"
    delete && create
    ;;
  *) wait_until_active ;;
  esac
}

dry_run=0
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=1
  shift
fi
case "${1:-}" in
create | fetch | delete) "$@" ;;
install | run | all)
  if [[ -z "$SHARE" ]]; then
    say "set SHARE=HOST:/PATH, a disk that all workers can mount"
    exit 2
  fi
  "$@"
  ;;
*)
  usage
  exit 2
  ;;
esac

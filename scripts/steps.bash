# shellcheck shell=bash
# Sourced by the scripts beside it: named steps, each with its duration, and
# words for what goes wrong. Everything here is printed to standard error.
#
#   step TITLE COMMAND…    runs a command whose output matters only if it fails
#   show TITLE COMMAND…    runs a command that reports its own progress
#   say TEXT…              one line
#   fail TEXT…             one line, and the end
#   lab_in_memory          chooses a faster place for a new lab where there is one
#
# A command may be a function. It runs in a subshell with errexit on, as long as
# step and show are not themselves part of a condition (if, &&, ||), in which
# bash turns errexit off all the way down.

# How often, in seconds, a step that takes long says so: where a line can be
# rewritten, and where it cannot (a log file).
readonly TICK_TERMINAL=1 TICK_LOG=15

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  readonly BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
  readonly BOLD='' GREEN='' RED='' YELLOW='' PLAIN=''
fi

# Steps so far as "microseconds<tab>title", for a summary at the end.
STEPS=()

say() { printf '%s\n' "$*" >&2; }

heading() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN" >&2; }

warn() { printf '%s%s%s\n' "$YELLOW" "$*" "$PLAIN" >&2; }

fail() {
  printf '%s%s: %s%s\n' "$RED" "${0##*/}" "$*" "$PLAIN" >&2
  exit 1
}

# now prints microseconds since the epoch. The decimal sign is the locale's.
now() { printf '%s' "${EPOCHREALTIME//[.,]/}"; }

# seconds MICROSECONDS prints them as seconds with one decimal.
seconds() { printf '%d.%d s' "$(($1 / 1000000))" "$(($1 % 1000000 / 100000))"; }

# tick TITLE says once in a while that a step is still running, until its
# standard input ends, which it also does when the script is gone.
tick() {
  local title=$1 started elapsed every=$TICK_LOG
  [[ -t 2 ]] && every=$TICK_TERMINAL
  started=$(now)
  # read fails with 1 at the end of its input and with more than 128 in time.
  while read -rt "$every" || (($? > 128)); do
    elapsed=$((($(now) - started) / 1000000))
    if [[ -t 2 ]]; then
      printf '\r\e[K  …  %s (%d s)' "$title" "$elapsed" >&2
    else
      printf '  …  %s (%d s so far)\n' "$title" "$elapsed" >&2
    fi
  done
}

step() {
  local title=$1 output clock clock_pid started took status
  shift
  output=$(mktemp)
  started=$(now)
  [[ -t 2 ]] && printf '  …  %s' "$title" >&2
  # Only the clock runs in the background: a command there would not get Ctrl-C.
  exec {clock}> >(tick "$title")
  clock_pid=$!
  set +e
  (
    set -e
    "$@" >"$output" 2>&1 </dev/null {clock}>&-
  )
  status=$?
  set -e
  exec {clock}>&-
  wait "$clock_pid" || true
  took=$(($(now) - started))
  [[ -t 2 ]] && printf '\r\e[K' >&2
  if ((status != 0)); then
    printf '  %sfailed%s  %s (%s)\n' "$RED" "$PLAIN" "$title" "$(seconds "$took")" >&2
    sed 's/^/      /' "$output" >&2
    rm -f "$output"
    return "$status"
  fi
  rm -f "$output"
  STEPS+=("$took"$'\t'"$title")
  printf '  %sdone%s  %s (%s)\n' "$GREEN" "$PLAIN" "$title" "$(seconds "$took")" >&2
}

show() {
  local title=$1 started took status
  shift
  printf '  …  %s\n' "$title" >&2
  started=$(now)
  set +e
  (
    set -e
    "$@"
  )
  status=$?
  set -e
  took=$(($(now) - started))
  if ((status != 0)); then
    printf '  %sfailed%s  %s (%s)\n' "$RED" "$PLAIN" "$title" "$(seconds "$took")" >&2
    return "$status"
  fi
  STEPS+=("$took"$'\t'"$title")
  printf '  %sdone%s  %s (%s)\n' "$GREEN" "$PLAIN" "$title" "$(seconds "$took")" >&2
}

# unchanged TITLE notes a step that had nothing to do.
unchanged() { printf '  %sok%s    %s\n' "$GREEN" "$PLAIN" "$*" >&2; }

# need_go puts Go on PATH where its installer left it, or says how to get it.
need_go() {
  command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null ||
    fail "Go is missing. Install it from https://go.dev/dl/ into /usr/local/go, then run this again."
  export PATH GOTOOLCHAIN=local
  local wanted have
  wanted=$(sed -n 's/^go //p' go.mod)
  have=$(go env GOVERSION)
  have=${have#go}
  [[ $(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1) == "$wanted" ]] ||
    fail "Go $have is too old: this needs $wanted or newer. Install it from https://go.dev/dl/."
}

# lab_in_memory keeps a new lab's state, and with it the disks of its machines, in
# memory where there is plenty: most of what machines do at their first boot is
# writing files. A lab that is there stays where it is.
lab_in_memory() {
  local needed=$((12 * 1024 * 1024)) memory place
  [[ -z ${INFRACTL_LAB_DIR:-} && ! -e /var/lib/infractl-lab && ! -e /run/infractl-lab/lab.json ]] || return 0
  memory=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  place=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)
  ((${memory:-0} >= needed && ${place:-0} >= needed)) || return 0
  export INFRACTL_LAB_DIR=/dev/shm/infractl-lab
}

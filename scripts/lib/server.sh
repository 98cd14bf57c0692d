# shellcheck shell=bash disable=SC2154 # state comes from the reader.
# The life of one server, whatever it is. A server NAME supplies
#   NAME_packages         what it needs of the system is there when this returns
#   NAME_install          everything it needs is there when this returns
#   NAME_start PORT DIR   starts it in the background and leaves its pid in DIR/pid
#   NAME_answers PORT     asks the server itself whether it is ready
#   NAME_address PORT     what clients connect to
#   NAME_mark DIR         a text that its command line holds
# and keeps everything else in DIR, which is $state/NAME.

start_seconds=60
stop_seconds=30

pid_of() {
    cat "$state/$1/pid" 2>/dev/null || true
}

port_of() {
    cat "$state/$1/port"
}

address_of() {
    "$1_address" "$(port_of "$1")"
}

variable_of() {
    echo "FOREBAY_TEST_$(echo "$1" | tr '[:lower:]' '[:upper:]')"
}

# A pid alone may meanwhile belong to another process, so its command line must fit too.
is_running() {
    local pid
    pid=$(pid_of "$1")
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
    case $(ps -ww -o command= -p "$pid" 2>/dev/null) in
        *"$("$1_mark" "$state/$1")"*) return 0 ;;
        *) return 1 ;;
    esac
}

# Ports below 32768 are never given to outgoing connections on Linux and macOS, so a
# server that is restarted finds its own free again.
free_port() {
    local port
    while :; do
        port=$((15000 + RANDOM % 17000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# start_on SERVER PORT: fails if the server ends or does not answer in time.
start_on() {
    local server=$1 port=$2 dir=$state/$1 deadline=$((SECONDS + start_seconds))
    mkdir -p "$dir"
    echo "$port" >"$dir/port"
    "${server}_start" "$port" "$dir"
    until is_running "$server" && "${server}_answers" "$port" && is_running "$server"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        kill -0 "$(pid_of "$server")" 2>/dev/null || return 1
        sleep 0.1
    done
    say "$server answers on 127.0.0.1:$port, process $(pid_of "$server")"
}

fail_start() {
    tail -n 20 "$state/$1/log" >&2 || true
    stop "$1"
    die "$1 did not start; its log was $state/$1/log"
}

# Another process may take a port between our choice and the server's bind.
start_fresh() {
    local server=$1 try
    for try in 1 2 3 4; do
        start_on "$server" "$(free_port)" && return
        grep -qi 'address already in use' "$state/$server/log" || break
        say "$server: port was taken meanwhile, try $try"
        stop "$server"
    done
    fail_start "$server"
}

# A server that was killed comes back on its port and data.
ensure_running() {
    local server=$1
    is_running "$server" && "${server}_answers" "$(port_of "$server")" && return
    if [ -f "$state/$server/port" ]; then
        stop "$server"
        start_on "$server" "$(port_of "$server")" || fail_start "$server"
    else
        start_fresh "$server"
    fi
}

stop() {
    local server=$1 pid deadline=$((SECONDS + stop_seconds))
    if is_running "$server"; then
        pid=$(pid_of "$server")
        # A server that a test has suspended would not hear the first signal.
        kill "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
        while is_running "$server"; do
            [ "$SECONDS" -lt "$deadline" ] || kill -KILL "$pid" 2>/dev/null || true
            sleep 0.1
        done
    fi
    rm -f "$state/$server/pid"
}

# start_process DIR COMMAND...: a process group of its own keeps Ctrl-C away from it.
start_process() {
    local dir=$1
    shift
    set -m
    nohup "$@" >"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    set +m
}

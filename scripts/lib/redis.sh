# shellcheck shell=bash
# Redis, as lib/server.sh wants it.

redis_packages() {
    has redis-server && return
    say "redis-server is missing: about 1.4 MB to download"
    install_or_explain redis-server redis-server redis
}

redis_install() {
    redis_packages
}

redis_start() {
    mkdir -p "$2/data"
    start_process "$2" redis-server --bind 127.0.0.1 --port "$1" --dir "$2/data" \
        --appendonly yes --save ''
}

redis_answers() (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'PING\r\n' >&3
    IFS= read -r -t 5 -u 3 reply && [ "${reply%%$'\r'}" = +PONG ]
) 2>/dev/null

redis_address() {
    echo "redis://127.0.0.1:$1/"
}

# Redis shows its address in its command line, not its folder.
redis_mark() {
    echo "127.0.0.1:$(cat "$1/port")"
}

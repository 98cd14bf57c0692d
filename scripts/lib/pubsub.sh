# shellcheck shell=bash disable=SC2154 # cache, scripts and state come from the reader.
# Google Cloud Pub/Sub, as lib/server.sh wants it: Google's own emulator where the Cloud SDK has it, else a server that
# is built around the fake with which Google tests its Go client. The fake serves to develop with, and is no match for
# the conformance suite: its topics retain nothing, so that a group sees only what is published after its first member
# came; it is slower, and knows exactly-once delivery only by name. Both keep everything in memory: it is gone when they
# stop.

pubsub_sources=$scripts/pubsub
pubsub_fake=$cache/pubsub-fake/pubsub-fake-$(cat "$pubsub_sources/go.mod" "$pubsub_sources/main.go" | cksum | cut -d ' ' -f 1)
pubsub_java=
pubsub_jar=

pubsub_packages() {
    pubsub_find_emulator
    [ -n "$pubsub_jar" ] && return
    has go || install_or_explain "Go, for want of Google's emulator (gcloud components install pubsub-emulator)," \
        golang-go go
}

pubsub_install() {
    pubsub_packages
    if [ -n "$pubsub_jar" ]; then
        say "pubsub: Google's emulator, $pubsub_jar"
        return
    fi
    say "pubsub: a server around Google's Go fake, since there is no emulator"
    [ -x "$pubsub_fake" ] || pubsub_build
}

# Sets pubsub_jar and pubsub_java to the emulator of the Cloud SDK and a Java for it, else leaves pubsub_jar empty.
pubsub_find_emulator() {
    local root jar
    has java && [ "$(java_major java)" -ge 11 ] || return 0
    for root in "${CLOUDSDK_ROOT:-}" "$(pubsub_sdk)"; do
        for jar in "$root"/platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar; do
            if [ -f "$jar" ]; then
                pubsub_jar=$jar
                pubsub_java=$(command -v java)
                return
            fi
        done
    done
}

# The Cloud SDK's folder. gcloud says it too, but takes a second.
pubsub_sdk() {
    local gcloud
    gcloud=$(command -v gcloud) || return 0
    gcloud=$(readlink -f "$gcloud" 2>/dev/null || echo "$gcloud")
    dirname "$(dirname "$gcloud")"
}

pubsub_build() {
    local part=$pubsub_fake.part.$$
    say "building the Pub/Sub fake with Go: 25 MB of modules"
    mkdir -p "$(dirname "$pubsub_fake")"
    (cd "$pubsub_sources" && go build -o "$part" .) >&2 || die "the Pub/Sub fake could not be built"
    mv "$part" "$pubsub_fake"
}

pubsub_start() {
    pubsub_find_emulator
    if [ -n "$pubsub_jar" ]; then
        start_process "$2" "$pubsub_java" -Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
            "-Djava.io.tmpdir=$2" -jar "$pubsub_jar" --host=127.0.0.1 "--port=$1"
    else
        start_process "$2" "$pubsub_fake" -address "127.0.0.1:$1" -state "$2"
    fi
}

pubsub_answers() (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'GET /v1/projects/forebay/topics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
    IFS= read -r -t 5 -u 3 status && case $status in *" 200 "*) ;; *) exit 1 ;; esac
) 2>/dev/null

pubsub_address() {
    echo "127.0.0.1:$1"
}

pubsub_mark() {
    echo "$1"
}

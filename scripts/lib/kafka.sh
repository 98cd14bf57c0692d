# shellcheck shell=bash disable=SC2154 # cache, scripts and state come from the reader.
# Apache Kafka, one KRaft node, as lib/server.sh wants it. Its jars come by Maven once;
# a class archive that halves the start and an empty formatted log folder are made then.

kafka_version=4.3.1
kafka_home=$cache/kafka-$kafka_version
kafka_files=$scripts/kafka
kafka_cluster=MkU3OEVBNTcwNTJENDM2Qg
kafka_java=

kafka_packages() {
    find_java
    if [ -z "$kafka_java" ]; then
        install_or_explain "Java 17 or newer" default-jre-headless openjdk
        find_java
        [ -n "$kafka_java" ] || die "the installed Java is older than 17: set JAVA_HOME to a newer one"
    fi
    [ -d "$kafka_home/lib" ] || has mvn || install_or_explain Maven maven maven
}

kafka_install() {
    kafka_packages
    [ -d "$kafka_home/lib" ] || kafka_fetch
    [ -f "$(kafka_archive)" ] || kafka_prepare
}

# Sets kafka_java to a Java of 17 or newer, else leaves it empty.
find_java() {
    local java
    for java in "${JAVA_HOME:-/nonexistent}/bin/java" java \
        /opt/homebrew/opt/openjdk/bin/java /usr/local/opt/openjdk/bin/java; do
        if has "$java" && [ "$(java_major "$java")" -ge 17 ]; then
            kafka_java=$(command -v "$java")
            return
        fi
    done
}

java_major() {
    local version
    version=$("$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    echo "${version:-0}"
}

# Folders get their final name only when they are complete.
kafka_fetch() {
    local part=$kafka_home/part.$$
    say "downloading Kafka $kafka_version by Maven to $kafka_home: 46 jars, 44 MB"
    mkdir -p "$part"
    mvn -q -B -Dstyle.color=never -f "$kafka_files/pom.xml" dependency:copy-dependencies \
        -DoutputDirectory="$part/lib" >&2 || die "Maven could not fetch Kafka $kafka_version"
    [ -d "$kafka_home/lib" ] || mv "$part/lib" "$kafka_home/lib"
    rm -rf "$part"
}

# The archive fits only the Java that wrote it.
kafka_archive() {
    echo "$kafka_home/classes-$("$kafka_java" -version 2>&1 | cksum | cut -d ' ' -f 1).jsa"
}

# Runs a broker once: Java writes the archive of the classes it used when it ends.
kafka_prepare() {
    local state=$kafka_home/prepare.$$ kafka_archive_option
    say "preparing Kafka's first start, a few seconds"
    mkdir -p "$state/kafka"
    kafka_properties 1 2 "$state/kafka" >"$state/kafka/server.properties"
    kafka_command kafka.tools.StorageTool format -t "$kafka_cluster" -c "$state/kafka/server.properties"
    "${command_line[@]}" >"$state/kafka/log" 2>&1 || die "Kafka could not format: $(tail -n 3 "$state/kafka/log")"
    rm -rf "$kafka_home/formatted"
    cp -R "$state/kafka/data" "$kafka_home/formatted"
    kafka_archive_option=-XX:ArchiveClassesAtExit=$state/classes.jsa
    start_fresh kafka
    stop kafka
    mv "$state/classes.jsa" "$(kafka_archive)"
    rm -rf "$state"
}

# kafka_command MAIN ARGUMENT...: sets command_line. C1 alone starts faster and, on few
# cores, leaves more of them to what is tested.
kafka_command() {
    command_line=("$kafka_java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
        "${kafka_archive_option:--XX:SharedArchiveFile=$(kafka_archive)}" -Xshare:auto
        -Djava.net.preferIPv4Stack=true "-Dlog4j2.configurationFile=$kafka_files/log4j2.xml"
        -cp "$kafka_home/lib/*" "$@")
}

# kafka_properties PORT CONTROLLER_PORT DIR
kafka_properties() {
    cat "$kafka_files/server.properties"
    cat <<TEXT

listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$2
advertised.listeners=PLAINTEXT://127.0.0.1:$1
controller.quorum.voters=1@127.0.0.1:$2
log.dirs=$3/data
TEXT
}

kafka_start() {
    [ -n "$kafka_java" ] || find_java
    kafka_properties "$1" "$(free_port)" "$2" >"$2/server.properties"
    [ -d "$2/data" ] || cp -R "$kafka_home/formatted" "$2/data"
    kafka_command kafka.Kafka "$2/server.properties"
    start_process "$2" "${command_line[@]}"
}

# Ready means that groups and transactions find their coordinators: by then the broker
# takes part in its cluster and has made its internal topics.
kafka_answers() {
    kafka_coordinator "$1" '\000' && kafka_coordinator "$1" '\001'
}

# kafka_coordinator PORT TYPE: FindCoordinator, version 1, for the key "f". The answer
# holds length, correlation and throttle time, four bytes each, then two of the error.
# A subshell, so that a connection that breaks ends no more than the question.
kafka_coordinator() (
    LC_ALL=C
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    # shellcheck disable=SC2059 # The type is an escape of ours.
    printf '\000\000\000\016\000\012\000\001\000\000\000\001\377\377\000\001f'"$2" >&3
    for place in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do
        IFS= read -r -d '' -n 1 -t 5 -u 3 byte || exit 1
        [ "$place" -le 12 ] || [ -z "$byte" ] || exit 1
    done
) 2>/dev/null

kafka_address() {
    echo "127.0.0.1:$1"
}

kafka_mark() {
    echo "$1/server.properties"
}

# shellcheck shell=bash disable=SC2154 # cache and state come from the reader.
# Apicurio, a schema registry that speaks Confluent's interface, as lib/server.sh wants it. It comes by Maven once and
# keeps its schemas in memory: they are gone when it stops.

registry_version=3.3.3
registry_home=$cache/apicurio-registry-$registry_version
registry_java=

registry_packages() {
    registry_find_java
    if [ -z "$registry_java" ]; then
        install_or_explain "Java 21 or newer" openjdk-21-jre-headless openjdk
        registry_find_java
        [ -n "$registry_java" ] || die "the installed Java is older than 21: set JAVA_HOME to a newer one"
    fi
    [ -f "$registry_home/quarkus-run.jar" ] || has mvn || install_or_explain Maven maven maven
}

registry_install() {
    registry_packages
    [ -f "$registry_home/quarkus-run.jar" ] || registry_fetch
}

# Sets registry_java to a Java of 21 or newer, else leaves it empty. It is often not the system's default one.
registry_find_java() {
    local java
    for java in "${JAVA_HOME:-/nonexistent}/bin/java" java /usr/lib/jvm/*/bin/java \
        /opt/homebrew/opt/openjdk/bin/java /usr/local/opt/openjdk/bin/java; do
        if has "$java" && [ "$(java_major "$java")" -ge 21 ]; then
            registry_java=$(command -v "$java")
            return
        fi
    done
}

# The folder gets its final name only when it is complete.
registry_fetch() {
    local part=$registry_home.part.$$
    say "downloading Apicurio Registry $registry_version by Maven to $registry_home: 159 MB"
    mkdir -p "$part/app"
    mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
        "-Dartifact=io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all" \
        "-DoutputDirectory=$part" >&2 || die "Maven could not fetch Apicurio Registry $registry_version"
    tar -xzf "$part"/*.tar.gz -C "$part/app"
    [ -d "$registry_home" ] || mv "$part/app" "$registry_home"
    rm -rf "$part"
}

registry_start() {
    [ -n "$registry_java" ] || registry_find_java
    start_process "$2" "$registry_java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$1" \
        -Dquarkus.management.host=127.0.0.1 "-Dquarkus.management.port=$(free_port)" \
        "-Djava.io.tmpdir=$2" -jar "$registry_home/quarkus-run.jar"
}

registry_answers() (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'GET /apis/ccompat/v7/subjects HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
    IFS= read -r -t 5 -u 3 status && case $status in *" 200 "*) ;; *) exit 1 ;; esac
) 2>/dev/null

registry_address() {
    echo "http://127.0.0.1:$1/apis/ccompat/v7"
}

registry_mark() {
    echo "-Djava.io.tmpdir=$1"
}

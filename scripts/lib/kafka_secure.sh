# shellcheck shell=bash disable=SC2154 # kafka_* and state come from the reader.
# A second Apache Kafka behind TLS, SASL and access rules, as lib/server.sh wants it. Tests
# find its folder, which holds
#   ca.pem, other-ca.pem   who signed the servers' certificates, and a stranger
#   client.pem, client.key what mutual TLS wants of a client: its name is alice
#   mtls, sasl, expired, elsewhere
#                          a listener's address each: mutual TLS; TLS and SASL; with a
#                          certificate that has run out; with one for another host
# Users of PLAIN and SCRAM-SHA-512 are alice, who may do everything, and bob, who may do
# nothing; their passwords end in -secret. OAUTHBEARER takes unsigned tokens.

kafka_secure_packages() {
    kafka_packages
    has openssl || install_or_explain openssl openssl openssl
}

kafka_secure_install() {
    kafka_secure_packages
    kafka_install
}

# kafka_certificate DIR NAME SUBJECT HOST DAYS: NAME.key, NAME.pem, and both in NAME-all.pem.
kafka_certificate() {
    local dir=$1 name=$2 subject=$3 host=$4 days=$5
    openssl req -quiet -newkey rsa:2048 -nodes -subj "/CN=$subject" \
        -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null ||
        openssl req -newkey rsa:2048 -nodes -subj "/CN=$subject" \
            -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null
    printf 'subjectAltName=%s\n' "$host" >"$dir/$name.ext"
    openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
        -CAcreateserial -days "$days" -extfile "$dir/$name.ext" -out "$dir/$name.pem" 2>/dev/null
    cat "$dir/$name.key" "$dir/$name.pem" >"$dir/$name-all.pem"
}

# kafka_authority DIR NAME
kafka_authority() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=Forebay tests $2" \
        -keyout "$1/$2.key" -out "$1/$2.pem" 2>/dev/null
}

# kafka_secure_certificates DIR: an expired certificate ran out a day ago.
kafka_secure_certificates() {
    kafka_authority "$1" ca
    kafka_authority "$1" other-ca
    kafka_certificate "$1" server localhost IP:127.0.0.1,DNS:localhost 3650
    kafka_certificate "$1" expired localhost IP:127.0.0.1,DNS:localhost -1
    kafka_certificate "$1" elsewhere kafka.example DNS:kafka.example 3650
    kafka_certificate "$1" client alice DNS:alice 3650
}

# kafka_secure_listener DIR NAME PORT CERTIFICATE: and what tests read of it.
kafka_secure_listener() {
    echo "127.0.0.1:$3" >"$1/$2"
    cat <<TEXT
listener.name.$2.ssl.keystore.type=PEM
listener.name.$2.ssl.keystore.location=$1/$4-all.pem
listener.name.$2.ssl.truststore.type=PEM
listener.name.$2.ssl.truststore.location=$1/ca.pem
TEXT
}

# kafka_secure_properties PORT DIR: brokers and controllers talk in the clear on loopback.
kafka_secure_properties() {
    local dir=$2 inside mtls expired elsewhere controller
    inside=$(free_port) mtls=$(free_port) expired=$(free_port) elsewhere=$(free_port) controller=$(free_port)
    grep -v '^listener.security.protocol.map=' "$kafka_files/server.properties"
    cat "$kafka_files/secure.properties"
    cat <<TEXT

listeners=PLAINTEXT://127.0.0.1:$inside,MTLS://127.0.0.1:$mtls,SASL://127.0.0.1:$1,EXPIRED://127.0.0.1:$expired,ELSEWHERE://127.0.0.1:$elsewhere,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$inside,MTLS://127.0.0.1:$mtls,SASL://127.0.0.1:$1,EXPIRED://127.0.0.1:$expired,ELSEWHERE://127.0.0.1:$elsewhere
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$dir/data
TEXT
    kafka_secure_listener "$dir" mtls "$mtls" server
    kafka_secure_listener "$dir" sasl "$1" server
    kafka_secure_listener "$dir" expired "$expired" expired
    kafka_secure_listener "$dir" elsewhere "$elsewhere" elsewhere
    echo "$inside" >"$dir/inside"
}

kafka_secure_start() {
    local port=$1 dir=$2
    [ -n "$kafka_java" ] || find_java
    [ -f "$dir/client.pem" ] || kafka_secure_certificates "$dir"
    kafka_secure_properties "$port" "$dir" >"$dir/server.properties"
    if [ ! -d "$dir/data" ]; then
        kafka_command kafka.tools.StorageTool format -t "$kafka_cluster" -c "$dir/server.properties" \
            --add-scram 'SCRAM-SHA-512=[name=alice,password=alice-secret]' \
            --add-scram 'SCRAM-SHA-512=[name=bob,password=bob-secret]'
        "${command_line[@]}" >"$dir/log" 2>&1 || die "Kafka could not format: $(tail -n 3 "$dir/log")"
    fi
    kafka_command kafka.Kafka "$dir/server.properties"
    start_process "$dir" "${command_line[@]}"
}

# Only the listener in the clear can be asked without a library.
kafka_secure_answers() {
    kafka_answers "$(cat "$state/kafka_secure/inside")"
}

kafka_secure_address() {
    echo "$state/kafka_secure"
}

kafka_secure_mark() {
    echo "$1/server.properties"
}

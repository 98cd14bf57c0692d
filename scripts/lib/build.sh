# shellcheck shell=bash disable=SC2034,SC2154 # cache and scripts come from the reader.
# What the scripts that compile need: a compiler, the checkout, the features that are tested.

root=$(cd "$scripts/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
export CARGO_TARGET_DIR=$target

# The one set of features that tests and lints are compiled with, so that nothing is compiled twice.
test_features=broker/conformance,broker/kafka-tls,broker/pubsub,broker/redis,broker/schema-registry,broker/testing,model_server/torch,modelling/train

# Rust itself needs a C compiler to link; librdkafka and libtorch's glue need C++ too.
check_compiler() {
    has cargo || die "cargo is missing: install Rust $(rust_version) or newer by rustup"
    if ! { has cc && has c++ && has make; }; then
        install_or_explain "a C and C++ compiler with make" "build-essential" "make gcc"
    fi
}

rust_version() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"
}

# step NAME COMMAND...: runs the command, says how long it took. Never call it in a condition: within one bash goes on
# after a failed command of a function.
step() {
    local name=$1 start=$SECONDS
    shift
    say "== $name"
    "$@"
    say "== $name: $((SECONDS - start)) s"
}

# Leaves LIBTORCH to the build, from the environment or third_party/libtorch.
has_libtorch() {
    [ -n "${LIBTORCH:-}" ] || [ -s "$root/third_party/libtorch/build-version" ]
}

# The setting by which programs find libtorch that were not told where it is.
libtorch_variable() {
    local name=LD_LIBRARY_PATH
    [ "$(uname -s)" != Darwin ] || name=DYLD_LIBRARY_PATH
    echo "$name=${LIBTORCH:-$root/third_party/libtorch}/lib${!name:+:${!name}}"
}

# Sets FOREBAY_DATA to the folder that holds mnist/.
find_data() {
    local folder
    for folder in "${FOREBAY_DATA:-}" "$root/../shared/data" "$cache"; do
        if [ -e "$folder/mnist/t10k-images-idx3-ubyte.gz" ]; then
            FOREBAY_DATA=$(cd "$folder" && pwd)
            export FOREBAY_DATA
            return
        fi
    done
    return 1
}

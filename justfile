# What you can do with quee. Everything runs from this folder; `./bootstrap just …` gets missing tools first.
#
# Settings go before the recipe: `just backend=gpu run experiments/digits/recipe.toml`.

set positional-arguments

# What runs the backbone: cpu, gpu or auto; empty for what the recipe says.
backend := ""

# Graphics adapter, a part of its name; empty for what the recipe says.
adapter := ""

# A `[profile.…]` table of the recipe; empty for none.
profile := ""

quee := "cargo run --release --quiet --package quee --"
backend_option := if backend == "" { "" } else { " --backend " + quote(backend) }
adapter_option := if adapter == "" { "" } else { " --adapter " + quote(adapter) }
device := backend_option + adapter_option
profile_option := if profile == "" { "" } else { " --profile " + quote(profile) }
settings := device + profile_option

# Files that cargo fmt does not see: a macro declares them, or they are in a workspace of their own.
unseen := "crates/quee-backbone/src/families/*.rs fuzz/fuzz_targets/*.rs fuzz/examples/*.rs"

[private]
menu:
    @just --justfile {{ quote(justfile()) }} --list --unsorted

# The whole experiment on 8×8 digits, data and backbone included; prints the folder with the report
demo *ARGS:
    {{ quee }} run experiments/digits/recipe.toml{{ settings }} "$@"

# Run an experiment: just run experiments/digits/recipe.toml
run RECIPE *ARGS:
    {{ quee }} run{{ settings }} "$@"

# The study of a data set: just reproduce cifar10 --profile small --data DIR --weights FILE
reproduce NAME *ARGS:
    @shift; {{ quee }} run experiments/{{ NAME }}/recipe.toml{{ settings }} "$@"

# Ask a question of experiments/conditions: just condition digits cells, just condition cifar10 widths --profile small --data DIR --weights FILE
condition NAME QUESTION *ARGS:
    @shift 2; {{ quee }} sweep experiments/{{ NAME }}/recipe.toml experiments/conditions/{{ QUESTION }}.toml{{ settings }} "$@"

# Run a recipe's [sweep], many settings, a run each, or go on with one: just sweep RECIPE --jobs 4; just sweep RECIPE --engine slurm; just sweep status DIR
sweep *ARGS:
    {{ quee }} sweep{{ if ARGS =~ '^(status|resume|collect)( |$)' { "" } else { settings } }} "$@"

# Put finished runs on one axis, and see where one is better: just compare RUN RUN --out DIR
compare *RUNS:
    {{ quee }} compare "$@"

# Run a finished run again and see whether every result is the same: just repeat runs/digits/latest
repeat RUN *ARGS:
    {{ quee }} repeat "$@"

# Write finished runs into an MLflow file store: just export runs/digits/latest --mlflow mlruns
export *ARGS:
    {{ quee }} export "$@"

# Measure which widths an experiment should offer: just ladder cifar10 --profile small --data DIR --weights FILE
ladder NAME *ARGS:
    @shift; {{ quee }} ladder experiments/{{ NAME }}/recipe.toml{{ settings }} "$@"

# Make, compare or look into quantizers: just quantize cifar10 --compare --data DIR --weights FILE; just quantize digits --out FILE
quantize NAME *ARGS:
    @shift; {{ quee }} quantize experiments/{{ NAME }}/recipe.toml{{ settings }} "$@"

# Print a recipe with every default filled in
show RECIPE *ARGS:
    {{ quee }} recipe show{{ settings }} "$@"

# Print what a backbone computes: just inspect vit_tiny_patch16_224, just inspect weights.pth
inspect WHAT *ARGS:
    {{ quee }} inspect backbone "$@"

# Classify pictures of your own with a stored policy: just predict --run runs/digits/latest --budget 0.02 IMAGE…
predict *ARGS:
    {{ quee }} predict{{ device }} "$@"

# List what can run a backbone on this machine: instruction sets of the processor and graphics adapters
backends *ARGS:
    {{ quee }} backends "$@"

# Find the fastest kernels on this machine's GPU, once: just tune, just tune experiments/cifar10/recipe.toml, just tune --dry-run
tune *ARGS:
    {{ quee }} tune "$@"

# Train the backbone of an experiment from scratch: just pretrain digits (hours for the others)
pretrain NAME *ARGS:
    @shift; {{ quee }} pretrain experiments/{{ NAME }}/pretrain.toml "$@"

# Get and check data sets: just data list, just data fetch cifar10, just data verify cifar10
data *ARGS:
    {{ quee }} data "$@"

# Get published weights: just weights list, just weights fetch deit_tiny_patch16_224
weights *ARGS:
    {{ quee }} weights "$@"

# List or throw away stored results: just cache list, just cache prune --limit 5GB, just cache clear
cache *ARGS:
    {{ quee }} cache "$@"

# Train a pretrained backbone on another data set: just finetune cifar10 --weights FILE
finetune NAME *ARGS:
    @shift; {{ quee }} finetune experiments/{{ NAME }}/finetune.toml "$@"

# Check everything: format, lints, documentation, tests
[group('developer')]
test:
    cargo fmt --all --check
    rustfmt --edition 2024 --check {{ unseen }}
    cargo clippy --release --workspace --all-targets --quiet -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --quiet
    cargo test --release --workspace --quiet
    # Mesa's software adapter with other subgroups than its own.
    LP_NATIVE_VECTOR_WIDTH=128 cargo test --release --workspace --quiet --test kernels --test devices
    LP_NATIVE_VECTOR_WIDTH=512 cargo test --release --workspace --quiet --test kernels --test devices
    just test-train-gpu
    just test-arm

# Check the kernels for 64-bit ARM in an emulator; skipped where qemu-aarch64, aarch64-linux-gnu-gcc or the Rust target is missing
[group('developer')]
test-arm:
    #!/bin/sh
    set -eu
    target=aarch64-unknown-linux-gnu
    for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
        command -v $tool >/dev/null || { echo "test-arm: SKIPPED, no $tool (Debian: qemu-user gcc-aarch64-linux-gnu)"; exit 0; }
    done
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || { echo "test-arm: SKIPPED, no Rust for it: rustup target add $target"; exit 0; }
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu"
    cargo clippy --release --target $target --package quee-cpu --all-targets --quiet -- -D warnings
    cargo test --release --target $target --package quee-quant --package quee-cpu --lib --tests --quiet

# Check training on the GPU, or on a software adapter; builds burn's wgpu backend, which takes a while
[group('developer')]
test-train-gpu:
    cargo test --release --workspace --features quee/train-gpu,quee-train/train-gpu --test gpu --quiet

# Kill, damage and crowd runs, more often than `just test` does; about ten minutes
[group('developer')]
torture:
    QUEE_TORTURE=1 cargo test --release --workspace --test faults -- --nocapture

# Measure the kernels; QUEE_BENCH_JSON=FILE also appends every point to a file as a line of JSON
[group('developer')]
bench *ARGS:
    cargo bench --package quee-cpu "$@"

# Show where the time goes: just profile, just profile --preset deit_tiny_patch16_224 --batch 1 --quantizer minmax, just profile --backend gpu
[group('developer')]
profile *ARGS:
    {{ quee }} bench profile "$@"

# Time the CPU backend beside other runtimes, in turns: just bench-peers --python .venv/bin/python --script peers.py --batch 64 --batch 1
[group('developer')]
bench-peers *ARGS:
    {{ quee }} bench peers "$@"

# Measure the GPU kernels, blocks and networks beside burn-wgpu and the CPU backend; its wgpu backend takes a while to build
[group('developer')]
bench-gpu *ARGS:
    cargo run --release --quiet --package quee --features train-gpu -- bench gpu "$@"

# Feed every parser of outside bytes with what a fuzzer makes up, each for so many seconds: just fuzz 120, just fuzz 900 pickle
[group('developer')]
fuzz SECONDS *TARGETS:
    #!/bin/sh
    set -eu
    command -v c++ >/dev/null || { echo "fuzz: a C++ compiler is missing, which builds the fuzzer; e.g. apt-get install g++" >&2; exit 2; }
    if ! cargo fuzz --version >/dev/null 2>&1; then
        echo "fuzz: installing cargo-fuzz, which takes a few minutes" >&2
        cargo install cargo-fuzz --locked --quiet
    fi
    seconds=$1
    shift
    [ $# -gt 0 ] || set -- $(cargo fuzz list)
    for target in "$@"; do
        # Without a sanitizer the stable compiler does: parsers have no unsafe code, and the targets watch memory themselves.
        more=
        [ "$target" != checkpoint ] || more=crates/quee-backbone/tests/fixtures
        mkdir -p "fuzz/corpus/$target"
        cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" $more -- \
            -max_total_time="$seconds" -max_len=16384 -timeout=10 -print_final_stats=1
    done

# Bring the code into the project's format
[group('developer')]
fmt:
    cargo fmt --all
    rustfmt --edition 2024 {{ unseen }}

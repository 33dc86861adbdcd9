# What you can do with quee. Everything runs from this folder; `./bootstrap just …` gets missing tools first.
#
# Settings go before the recipe: `just backend=cpu profile=full run experiments/digits/recipe.toml`.

set positional-arguments

# Where the quantized segments run; empty for what the recipe says.
backend := ""

# A `[profile.…]` table of the recipe; empty for none.
profile := ""

quee := "cargo run --release --quiet --package quee --"
backend_option := if backend == "" { "" } else { " --backend " + quote(backend) }
profile_option := if profile == "" { "" } else { " --profile " + quote(profile) }
settings := backend_option + profile_option

[private]
menu:
    @just --justfile {{ quote(justfile()) }} --list --unsorted

# The whole method on the digits inside the program
demo *ARGS:
    {{ quee }} run experiments/digits/recipe.toml{{ settings }} "$@"

# Run an experiment: just run experiments/digits/recipe.toml
run RECIPE *ARGS:
    {{ quee }} run{{ settings }} "$@"

# Print a recipe with every default filled in
show RECIPE *ARGS:
    {{ quee }} recipe show{{ settings }} "$@"

# Answer pictures of your own: just predict IMAGE…
predict *ARGS:
    {{ quee }} predict "$@"

# Train a backbone from scratch, as a TOML file describes it
pretrain FILE *ARGS:
    {{ quee }} pretrain "$@"

# Check everything: format, lints, documentation, tests
[group('developer')]
test:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --quiet -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --quiet
    cargo test --release --workspace --quiet

# Measure the kernels
[group('developer')]
bench *ARGS:
    cargo bench --package quee-cpu "$@"

# Bring the code into the project's format
[group('developer')]
fmt:
    cargo fmt --all

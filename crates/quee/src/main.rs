//! The `quee` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    quee::cli::main()
}

//! The `quee` program.
fn main() {}

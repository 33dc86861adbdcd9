//! The `quee` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    skip_device_selection();
    quee::cli::main()
}

/// Without a desktop, Mesa's layer that lets desktops select a GPU has nothing to do but complain about missing ones on the error stream.
fn skip_device_selection() {
    let desktop = ["XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY"];
    if desktop.iter().all(|name| std::env::var_os(name).is_none()) {
        // SAFETY: nothing has run before, so there is no other thread that could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

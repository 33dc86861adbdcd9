//! The families of architectures. This list is the registry: a new family is a file beside this one and a name here.

use crate::presets::Preset;

/// Declares each family's module and collects their `presets()`.
macro_rules! families {
    ($($name:ident),+ $(,)?) => {
        $(pub mod $name;)+

        /// Every preset, family by family.
        pub(crate) fn presets() -> Vec<Preset> {
            [$($name::presets()),+].concat()
        }
    };
}

families! {
    vit,
    deit,
    t2t,
    mixer,
}

//! Writes the first inputs of every target into `seeds/<target>/`.

use std::fs;
use std::path::Path;

fn main() {
    quee_fuzz::seeds::all(&mut |target, name, bytes| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("room");
    });
}

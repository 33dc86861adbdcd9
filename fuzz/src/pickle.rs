//! The pickle that describes the objects of a checkpoint: in an archive whose checksums are right, and in the format before PyTorch 1.6
//! after the pickles that come first there.

use quee_backbone::checkpoint::Checkpoint;

fn read(bytes: &[u8]) {
    super::bounded(bytes.len(), 10, 128 << 10, || {
        let Ok(mut checkpoint) = Checkpoint::parse(bytes, "fuzz") else { return };
        let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
        for name in names {
            let shape = checkpoint.shape(&name).expect("it is named").to_vec();
            if let Ok(values) = checkpoint.take(&name, &shape) {
                assert_eq!(values.len(), shape.iter().product::<usize>());
            }
        }
    });
}

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(pickle: &[u8]) {
    let storage: Vec<u8> = (0..64).collect();
    read(&super::shells::zip(&[
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", &storage),
        ("a/data/1", &storage[..8]),
    ]));
    read(&[super::shells::LEGACY_START, pickle].concat());
}

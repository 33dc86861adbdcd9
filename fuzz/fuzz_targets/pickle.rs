//! The pickle that describes the objects of a checkpoint: in an archive whose checksums are right, and in the format before PyTorch 1.6
//! after the pickles that come first there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quee_backbone::checkpoint::Checkpoint;

fn read(bytes: &[u8]) {
    quee_fuzz::bounded(bytes.len(), 10, 128 << 10, || {
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

fuzz_target!(|pickle: &[u8]| {
    let storage: Vec<u8> = (0..64).collect();
    read(&quee_fuzz::zip(&[
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", &storage),
        ("a/data/1", &storage[..8]),
    ]));
    read(&[quee_fuzz::LEGACY_START, pickle].concat());
});

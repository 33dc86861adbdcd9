//! Weights in any format: safetensors, archives of torch.save, and its format before version 1.6.

use quee_backbone::checkpoint::Checkpoint;

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(bytes: &[u8]) {
    super::bounded(bytes.len(), 10, 128 << 10, || {
        let Ok(mut checkpoint) = Checkpoint::parse(bytes, "fuzz") else { return };
        let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
        for name in names {
            let shape = checkpoint.shape(&name).expect("it is named").to_vec();
            match checkpoint.take(&name, &shape) {
                Ok(values) => assert_eq!(values.len(), shape.iter().product::<usize>()),
                Err(_) => drop(checkpoint.take_words(&name, &shape)),
            }
        }
        let _ = checkpoint.finish();
    });
}

//! Quantizers in files: the notes in JSON, a byte 0, and a safetensors file with the tensors that they name.

use quee_backbone::QuantPlan;
use quee_backbone::checkpoint::Checkpoint;
use quee_backbone::quant_file::PlanNotes;

/// Reads the bytes.
///
/// # Panics
/// When what was read breaks a promise.
pub fn run(bytes: &[u8]) {
    let Some((notes, tensors)) = super::shells::notes_and_tensors(bytes) else { return };
    super::bounded(bytes.len(), 100, 128 << 10, || {
        let Ok(notes) = serde_json::from_slice::<PlanNotes>(notes) else { return };
        let Ok(mut file) = Checkpoint::parse(tensors, "fuzz") else { return };
        let Ok(plan) = QuantPlan::load(notes, "", &mut file) else { return };
        // What was read can be written and read again, and is the same.
        let mut tensors = Vec::new();
        let stored = plan.store("", &mut tensors);
        let text = serde_json::to_string(&stored).expect("notes are representable");
        let again: PlanNotes = serde_json::from_str(&text).expect("notes that were written are read");
        let file = quee_backbone::tensor_file::encode(&tensors, &Default::default());
        let mut file = Checkpoint::parse(&file, "again").expect("a file that was written is read");
        let plan = QuantPlan::load(again.clone(), "", &mut file).expect("a plan that was written is read");
        assert_eq!(plan.store("", &mut Vec::new()), again);
    });
}

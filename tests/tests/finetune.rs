//! Fine-tuning as a program: it survives being killed, starts anew on request, and refuses what does not fit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quee_tests::{program, quee, stderr, workspace};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use tempfile::TempDir;

const WEIGHTS: &str = "assets/digits/vit_d6_w80_p2_8.safetensors";

/// A small training from the embedded weights, whose test pictures these have not seen.
const RECIPE: &str = r#"
dataset = "digits"
preset = "vit_d6_w80_p2_8"
weights = "assets/digits/vit_d6_w80_p2_8.safetensors"
train_pictures = 260
validation_pictures = 60
test_pictures = 360
epochs = 8
batch = 50
learning_rate = 0.0003
backbone_rate = 0.3
mixup = 0.2
[augment]
shift = 1.0
[profile.short]
epochs = 1
"#;

/// A folder with the recipe, and its arguments for weights called `name`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("finetune.toml"), RECIPE).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn args(&self, name: &str, more: &[&str]) -> Vec<String> {
        let own = ["finetune".into(), self.path("finetune.toml").display().to_string()];
        let out = ["--out".into(), self.path(name).display().to_string()];
        own.into_iter().chain(out).chain(more.iter().map(|&a| a.to_owned())).collect()
    }

    fn done(&self, name: &str, more: &[&str]) -> String {
        let output = quee(&self.args(name, more));
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!self.path(&format!("{name}.state")).exists(), "a finished training leaves no state");
        stderr(&output)
    }

    fn refused(&self, name: &str, more: &[&str], words: &[&str]) {
        let output = quee(&self.args(name, more));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("panicked"), "{text}");
        assert!(!self.path(name).exists(), "nothing is written");
    }

    /// Starts the training and waits until a new state lies there.
    fn started(&self, name: &str, more: &[&str]) -> Child {
        let state = self.path(&format!("{name}.state"));
        let modified = || std::fs::metadata(&state).and_then(|m| m.modified()).ok();
        let before = modified();
        let mut command = Command::new(program());
        command.current_dir(workspace()).env_remove("QUEE_DATA").args(self.args(name, more));
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        while modified() == before {
            assert!(child.try_wait().unwrap().is_none(), "the training ended without saving its state");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

fn notes(path: &Path) -> std::collections::HashMap<String, String> {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().clone().unwrap()
}

#[test]
fn a_killed_training_goes_on_to_the_same_bits() {
    let place = Place::new();
    let told = place.done("whole", &["--threads", "1"]);
    assert!(told.contains("200 pictures for training, 60 for validation, 360 for testing"), "{told}");
    let notes = notes(&place.path("whole"));
    assert_eq!(notes["dataset"], "digits");
    // What the weights had seen, training and validation.
    let seen: Vec<usize> = notes["train_indices"].split(' ').map(|i| i.parse().unwrap()).collect();
    assert!(seen.len() == 800 && seen.is_sorted(), "{} seen", seen.len());
    let accuracy: f64 = notes["test_accuracy"].parse().unwrap();
    assert!(accuracy > 0.9, "{accuracy}");
    assert!(notes["recipe"].contains("backbone_rate = 0.3"), "{}", notes["recipe"]);

    let mut killed = place.started("parts", &["--threads", "2"]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!place.path("parts").exists());

    place.refused("parts", &["--set", "seed=1"], &["another recipe", "--restart"]);

    #[cfg(unix)]
    {
        let interrupted = place.started("parts", &[]);
        let sent = Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = interrupted.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        assert!(place.path("parts.state").exists());
    }

    let told = place.done("parts", &[]);
    assert!(told.contains("going on from"), "{told}");
    let read = |name| std::fs::read(place.path(name)).unwrap();
    assert!(read("parts") == read("whole"), "a killed training ends in other bits");
}

#[test]
fn a_damaged_state_is_refused_and_restart_begins_anew() {
    let place = Place::new();
    std::fs::write(place.path("x.state"), [7; 100]).unwrap();
    let short = ["--profile", "short"];
    place.refused("x", &short, &["x.state", "--restart"]);
    place.done("x", &[short.as_slice(), &["--restart"]].concat());
}

#[test]
fn a_head_for_other_classes_is_replaced() {
    let place = Place::new();
    let bytes = std::fs::read(workspace().join(WEIGHTS)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (weight, bias) = (vec![0; 3 * 80 * 4], vec![0; 3 * 4]);
    let tensors = file.tensors().into_iter().map(|(name, tensor)| {
        let tensor = match name.as_str() {
            "head.weight" => TensorView::new(Dtype::F32, vec![3, 80], &weight).unwrap(),
            "head.bias" => TensorView::new(Dtype::F32, vec![3], &bias).unwrap(),
            _ => tensor,
        };
        (name, tensor)
    });
    let weights = place.path("three.safetensors");
    std::fs::write(&weights, serialize(tensors, None).unwrap()).unwrap();
    // The new head alone learns on the old features.
    let set = ["--set", "backbone_rate=0", "--set", "learning_rate=0.01", "--set", "epochs=4"];
    let told = place.done("x", &[&set[..], &["--weights", weights.to_str().unwrap()]].concat());
    assert!(told.contains("new head for 10 classes instead of 3"), "{told}");
    let accuracy: f64 = notes(&place.path("x"))["test_accuracy"].parse().unwrap();
    assert!(accuracy > 0.8, "{accuracy}");
    let trained = std::fs::read(place.path("x")).unwrap();
    let trained = SafeTensors::deserialize(&trained).unwrap();
    let same = |name: &str| trained.tensor(name).unwrap().data() == file.tensor(name).unwrap().data();
    assert!(same("blocks.5.mlp.fc2.weight") && same("norm.weight"));
    assert_eq!(trained.tensor("head.weight").unwrap().shape(), [10, 80]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let place = Place::new();
    place.refused("x", &["--set", "weights="], &["--weights", "pretrain"]);
    place.refused("x", &["--weights", "/no/such/weights"], &["/no/such/weights", "hint"]);
    place.refused("x", &["--set", "epoch=1"], &["did you mean `epochs`"]);
    place.refused("x", &["--set", "split_seed=1"], &["for testing", "split_seed"]);
    place.refused("x", &["--set", "train_pictures=5000"], &["split", "5000", "hint"]);
    // Not a multiple of the patch. Other sizes are no error: pictures are resized and positions resampled.
    place.refused("x", &["--set", "image=31"], &["31×31", "hint"]);
    place.refused("x", &["--data", "/no/such/data"], &["/no/such/data", "hint"]);
    place.refused("x", &["--profile", "long"], &["long", "short"]);
    let mut args = place.args("x", &[]);
    args[0] = "pretrain".into();
    let output = quee(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("quee finetune"), "{}", stderr(&output));
    place.refused("finetune.toml/x", &[], &["--out"]);
    // This program is built for the processor alone.
    place.refused("x", &["--device", "gpu"], &["train-gpu", "cargo build"]);
}

#[test]
fn pretraining_writes_weights_that_a_run_accepts() {
    let place = Place::new();
    let out = place.path("fresh.safetensors");
    let output = quee(&[
        "pretrain",
        "experiments/digits/pretrain.toml",
        "--out",
        out.to_str().unwrap(),
        "--set",
        "epochs=1",
        "--set",
        "train_pictures=100",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(notes(&out)["train_indices"].split(' ').count(), 100);
    let shown = quee(&["recipe", "keys", "--training"]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("backbone_rate"));
}

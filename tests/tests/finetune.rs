//! Fine-tuning as a program: it survives being killed, begins anew where its state is damaged, and refuses what does not fit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use quee_tests::{call, entries, quee, stderr, workspace};
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
        stderr(&output)
    }

    fn refused(&self, name: &str, more: &[&str], words: &[&str]) {
        let output = quee(&self.args(name, more));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains("panicked"), "{text}");
        assert!(!self.path(name).exists(), "nothing is written");
    }

    /// The argument that names a cache in the folder.
    fn cache(&self) -> String {
        format!("--cache={}", self.path("cache").display())
    }

    /// The files of unfinished trainings in the cache.
    fn states(&self) -> Vec<PathBuf> {
        let unfinished = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "parts");
        entries(&self.path("cache")).into_iter().filter(unfinished).collect()
    }

    /// Starts the training and waits until it has kept another state in the cache.
    fn started(&self, name: &str, more: &[&str]) -> Child {
        std::fs::create_dir_all(self.path("cache")).unwrap();
        // Weights are longer than what a file says about itself.
        let kept = |about: &std::fs::Metadata| about.len() > 100_000;
        let times = || -> Vec<SystemTime> {
            let about = self.states().into_iter().filter_map(|file| std::fs::metadata(file).ok());
            about.filter(kept).map(|about| about.modified().unwrap()).collect()
        };
        let before = times();
        let cache = self.cache();
        let mut command = call(&self.args(name, &[more, &[cache.as_str()]].concat()));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        loop {
            let now = times();
            if !now.is_empty() && now != before {
                return child;
            }
            assert!(child.try_wait().unwrap().is_none(), "the training ended before a state was seen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As [`started`](Self::started), then killed.
    fn killed(&self, name: &str, more: &[&str]) {
        let mut child = self.started(name, more);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!self.path(name).exists());
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

    place.killed("parts", &["--threads", "2"]);
    let cache = place.cache();
    let cache = [cache.as_str()];
    let other = place.done("other", &[&cache[..], &["--profile", "short"]].concat());
    assert!(!other.contains("going on"), "the state of another recipe: {other}");

    #[cfg(unix)]
    {
        let interrupted = place.started("parts", &[]);
        let sent = Command::new("kill").args(["-INT", &interrupted.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = interrupted.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        let told = stderr(&output);
        assert!(told.contains("going on where") && told.contains("the same command goes on there"), "{told}");
        assert!(!place.path("parts").exists());
    }

    let told = place.done("parts", &cache);
    assert!(told.contains("going on where"), "{told}");
    let read = |name| std::fs::read(place.path(name)).unwrap();
    assert!(read("parts") == read("whole"), "a killed training ends in other bits");
    assert!(place.states().is_empty(), "a finished training leaves no state");
    assert!(place.done("again", &cache).contains("(stored)"));
    assert!(read("again") == read("whole"), "the stored result has other bits");
}

#[test]
fn a_damaged_state_is_said_and_the_training_begins_anew() {
    let place = Place::new();
    let (two, cache) = (["--set", "epochs=2"], place.cache());
    place.killed("x", &two);
    let states = place.states();
    let [state] = states.as_slice() else { panic!("{states:?}") };
    let mut bytes = std::fs::read(state).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(state, bytes).unwrap();
    let told = place.done("x", &[&two[..], &[cache.as_str()]].concat());
    assert!(told.contains("cut off") && !told.contains("going on"), "{told}");
    place.done("undisturbed", &two);
    assert!(std::fs::read(place.path("x")).unwrap() == std::fs::read(place.path("undisturbed")).unwrap());
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

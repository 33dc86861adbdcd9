//! Figures of benches as lines of JSON, for whoever follows them over commits.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::sync::OnceLock;

/// Names the file that lines are appended to.
const FILE: &str = "QUEE_BENCH_JSON";

/// Appends `{"bench", "point", "processor", "commit", figures…}` where `QUEE_BENCH_JSON` names a file. Figures that are not finite are null.
///
/// # Panics
/// When the file cannot be written.
pub fn line(bench: &str, point: &str, figures: &[(&str, f64)]) {
    let Some(file) = std::env::var_os(FILE) else { return };
    static ABOUT: OnceLock<[String; 2]> = OnceLock::new();
    let [processor, commit] = ABOUT.get_or_init(|| [processor(), commit()]);
    let mut text = String::from("{");
    for (name, value) in [("bench", bench), ("point", point), ("processor", processor), ("commit", commit)] {
        // Writing into a String cannot fail.
        let _ = write!(text, "{}\"{name}\":{}", if text.len() > 1 { "," } else { "" }, quoted(value));
    }
    for (name, value) in figures {
        let value = if value.is_finite() { value.to_string() } else { "null".into() };
        let _ = write!(text, ",{}:{value}", quoted(name));
    }
    text += "}\n";
    let opened = OpenOptions::new().create(true).append(true).open(&file);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).unwrap_or_else(|error| panic!("{FILE}: {error}"));
}

fn quoted(text: &str) -> String {
    let legal = text.chars().filter(|c| !c.is_control());
    let escaped = legal.flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]));
    format!("\"{}\"", escaped.collect::<String>())
}

/// What Linux calls the processor; empty elsewhere.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    name.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// The commit of the sources, with a `+` where they differ from it; empty without git.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty());
    git(&["rev-parse", "--short", "HEAD"]).unwrap_or_default() + if changed { "+" } else { "" }
}

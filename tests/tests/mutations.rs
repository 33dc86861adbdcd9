//! Recipes and policies in which something was changed at random: they are read or refused, and never make the program break down.

use std::fs;
use std::path::Path;

use quee::{artefact, recipe, run};
use quee_tests::{DIGITS, QUICK, quee, stderr, workspace};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// What stands in files that nobody checked.
const ODD: &[&str] = &[
    "0",
    "-1",
    "1",
    "2",
    "3.5",
    "1e300",
    "-1e300",
    "18446744073709551615",
    "9223372036854775807",
    "4294967296",
    "true",
    "\"\"",
    "\"x\"",
    "\"w9a9\"",
    "\"w0a0\"",
    "[]",
    "[0]",
    "[[]]",
    "[1, 1]",
    "[\"w4a4\", \"w4a4\"]",
    "{}",
    "\"é\\u0000\"",
];

fn pick<'a, T>(rng: &mut ChaCha8Rng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// Changes a line or a few characters of a text.
fn mutate_text(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..lines.len());
        match rng.random_range(0..6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, pick(rng, &lines.clone()).clone()),
            2 => {
                let mut chars: Vec<char> = lines[at].chars().collect();
                if !chars.is_empty() {
                    let place = rng.random_range(0..chars.len());
                    chars[place] = *pick(rng, &['"', '[', ']', '=', '.', '#', '-', '9', '\u{0}', 'é', '\\', '{']);
                }
                lines[at] = chars.into_iter().collect();
            }
            // A value in place of another.
            _ => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", pick(rng, ODD));
                }
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

#[test]
fn changed_recipes_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    for extended in ["base.toml", "study.toml"] {
        fs::copy(workspace().join("experiments").join(extended), folder.path().join(extended)).unwrap();
    }
    fs::create_dir(folder.path().join("one")).unwrap();
    let path = folder.path().join("one/recipe.toml");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut read, mut refused) = (0, 0);
    for source in ["base.toml", "study.toml", "digits/recipe.toml", "cifar10/recipe.toml"] {
        let text = fs::read_to_string(workspace().join("experiments").join(source)).unwrap();
        for _ in 0..400 {
            let text = mutate_text(&text, &mut rng);
            fs::write(&path, &text).unwrap();
            match recipe::load(&path, None, &[]) {
                Ok(recipe) => {
                    let _ = run::path_tree(&recipe);
                    read += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("recipe.toml"), "the message names the file: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
    for odd in ODD {
        for key in ["quant.widths", "paths.segments", "predictor.hidden", "seeds", "threads", "exits", "", ".", "a.b.c"]
        {
            let _ = recipe::load(&workspace().join(DIGITS), None, &[format!("{key}={odd}")]);
        }
    }
}

/// Number of values in a tree.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes value number `at`, counted from the root down.
fn mutate_json(value: &mut Value, at: &mut usize, rng: &mut ChaCha8Rng) {
    if *at == 0 {
        match (rng.random_range(0..3), &mut *value) {
            (0, Value::Array(values)) if !values.is_empty() => drop(values.pop()),
            (1, Value::Array(values)) if !values.is_empty() => values.push(values[0].clone()),
            (0, Value::Object(fields)) if !fields.is_empty() => {
                let key = pick(rng, &fields.keys().cloned().collect::<Vec<_>>()).clone();
                fields.remove(&key);
            }
            _ => {
                let text = pick(rng, ODD);
                *value = serde_json::from_str(text).unwrap_or(json!(null));
            }
        }
    }
    let children: Vec<&mut Value> = match value {
        Value::Array(values) => values.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        if *at == 0 {
            return;
        }
        *at -= 1;
        mutate_json(child, at, rng);
    }
}

/// A safetensors file in its three parts: header, and the bytes of all tensors.
fn parts(file: &[u8]) -> (Value, &[u8]) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&file[8..8 + length]).unwrap(), &file[8 + length..])
}

fn whole(header: &Value, tensors: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), tensors].concat()
}

fn policy(out: &Path) -> Vec<u8> {
    let mut args = vec!["run", DIGITS, "--out", out.to_str().unwrap()];
    args.extend(QUICK);
    args.extend(["--set", "timing.measure=false"]);
    let output = quee(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    fs::read(Path::new(&folder).join("policy.safetensors")).unwrap()
}

#[test]
fn changed_policies_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = policy(folder.path());
    let path = folder.path().join("policy.safetensors");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        artefact::read(folder.path()).map(|_| ()).map_err(|error| format!("{error:#}"))
    };
    read(&file).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (header, tensors) = parts(&file);
    assert!(read(&whole(&header, tensors)).is_ok(), "taken apart and put together, it is the same");
    let notes: Value = serde_json::from_str(header["__metadata__"]["policy"].as_str().unwrap()).unwrap();
    let mut refused = 0;
    for i in 0..300 {
        let mut header = header.clone();
        let bytes = match i % 4 {
            // The notes, whose arrays are long: half of the changes go to the first level but one.
            0 | 1 => {
                let mut changed = notes.clone();
                let keys: Vec<String> = notes.as_object().unwrap().keys().cloned().collect();
                let part = &mut changed[pick(&mut rng, &keys)];
                let mut at = rng.random_range(0..if i % 4 == 0 { count(part) } else { count(part).min(12) });
                mutate_json(part, &mut at, &mut rng);
                header["__metadata__"]["policy"] = json!(changed.to_string());
                whole(&header, tensors)
            }
            2 => {
                let mut at = rng.random_range(0..count(&header));
                mutate_json(&mut header, &mut at, &mut rng);
                whole(&header, tensors)
            }
            _ => {
                let mut bytes = file.clone();
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                bytes.truncate(if rng.random_range(0..4) == 0 { at } else { bytes.len() });
                bytes
            }
        };
        refused += usize::from(read(&bytes).is_err());
    }
    assert!(refused > 100, "{refused} refused");
}

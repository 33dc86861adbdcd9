//! `quee data` and `quee weights` against a local server.

#[path = "../../crates/quee-data/tests/server/mod.rs"]
mod server;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use flate2::{Compression, write::GzEncoder};
use quee_tests::{entries, program, stderr, workspace};
use server::{Answer, Server, cut, rest, status, stuck, whole};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ROOT: &str = "cifar-10-batches-bin";
const ARCHIVE: &str = "cifar-10-binary.tar.gz";

/// The program with `--data` for its own.
fn command(args: &[&str], data: &Path) -> Command {
    let mut command = Command::new(program());
    command.current_dir(workspace()).args(args).arg("--data").arg(data);
    command
}

fn run(args: &[&str], data: &Path) -> Output {
    command(args, data).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code 2, all of `words` on the error stream, no panic.
fn refused(output: &Output, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

fn files(folder: &Path) -> Vec<String> {
    let below = |p: &Path| p.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
    entries(folder).iter().filter(|p| !p.is_dir() || p.is_symlink()).map(|p| below(p)).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A tar.gz archive of plain files; `more` may add to it.
fn archive(files: &[(&str, &[u8])], more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *data).unwrap();
    }
    more(&mut tar);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar.into_inner().unwrap()).unwrap();
    encoder.finish().unwrap()
}

/// 40 pictures of CIFAR-10 in the official layout, of pixels that do not compress.
fn small_cifar() -> Vec<u8> {
    let mut state = 1u32;
    let mut batch = |pictures: usize| {
        let mut bytes = Vec::new();
        for i in 0..pictures {
            bytes.push((i % 10) as u8);
            bytes.extend((0..3072).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }));
        }
        bytes
    };
    let names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    let batches = names.map(|name| (format!("{ROOT}/{name}.bin"), batch(if name == "test_batch" { 10 } else { 6 })));
    let mut list: Vec<(&str, &[u8])> = batches.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    list.push(("cifar-10-batches-bin/batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n"));
    archive(&list, |_| ())
}

/// `quee data fetch cifar10` from a server that plays `script` instead of the official one.
fn fetch_cifar(script: Vec<Answer>, bytes: &[u8]) -> (TempDir, Server, Output) {
    let data = tempfile::tempdir().unwrap();
    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(script);
    let args = ["data", "fetch", "cifar10", "--from", &server.base, "--sha256", &sha256(bytes)];
    let output = run(&args, data.path());
    (data, server, output)
}

#[test]
fn an_archive_is_fetched_unpacked_and_checked() {
    let bytes = small_cifar();
    // A fault, half of the file, the rest.
    let half = bytes.len() / 2;
    let script = vec![status("500 Internal Server Error", ""), cut(&bytes, half), rest(&bytes, half)];
    let (data, server, output) = fetch_cifar(script, &bytes);
    assert!(stdout(&output).contains("checksum right"));
    assert!(stderr(&output).contains("Krizhevsky"), "the terms are shown: {}", stderr(&output));
    assert_eq!(server.requests()[2], format!("GET /{ARCHIVE} HTTP/1.1"));
    assert_eq!(server.header(2, "range"), Some(format!("bytes={half}-")));
    let found = files(data.path());
    assert_eq!(found.len(), 8, "{found:?}");
    assert!(found.iter().all(|name| name.starts_with("cifar10/cifar-10-batches-bin/")), "{found:?}");

    // Nothing is fetched twice, whoever is asked.
    let again = run(&["data", "fetch", "cifar10", "--from", "http://127.0.0.1:1"], data.path());
    assert!(stdout(&again).contains("was there already"));

    let text = stdout(&run(&["data", "verify", "cifar10"], data.path()));
    assert!(text.contains("subset: 30 of 50,000 training pictures, 10 of 10,000 test pictures"), "{text}");
    assert_eq!(text.matches("sha256 right").count(), 7, "{text}");

    // A changed byte and a lost file are found and named.
    let folder = data.path().join("cifar10").join(ROOT);
    let mut batch = fs::read(folder.join("data_batch_3.bin")).unwrap();
    batch[1000] ^= 1;
    fs::write(folder.join("data_batch_3.bin"), batch).unwrap();
    fs::remove_file(folder.join("test_batch.bin")).unwrap();
    let broken = run(&["data", "verify", "cifar10"], data.path());
    refused(&broken, &["data_batch_3.bin", "DIFFERS", "test_batch.bin", "MISSING", "hint"]);
    let text = stderr(&broken);
    let line = text.lines().find(|line| line.contains("data_batch_1.bin")).unwrap();
    assert!(line.contains("sha256 right"), "{line}");
}

#[test]
fn an_archive_put_there_by_hand_is_unpacked_without_a_network() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("cifar10");
    fs::create_dir(&folder).unwrap();
    let bytes = small_cifar();
    fs::write(folder.join(ARCHIVE), &bytes).unwrap();
    refused(&run(&["data", "verify", "cifar10"], data.path()), &["data fetch cifar10", "without a network"]);
    let args = ["data", "fetch", "cifar10", "--from", "http://127.0.0.1:1", "--sha256", &sha256(&bytes)];
    assert!(stdout(&run(&args, data.path())).contains("unpacked from the archive that was there"));
    assert!(folder.join(ARCHIVE).exists() && folder.join(ROOT).join("SHA256SUMS").exists());
    // It is not the official archive, and without --sha256 that is what counts.
    refused(&run(&["data", "verify", "cifar10"], data.path()), &[ARCHIVE, "DIFFERS", "md5"]);
}

#[test]
fn the_official_checksum_counts_unless_another_is_given() {
    let data = tempfile::tempdir().unwrap();
    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(vec![whole(&small_cifar())]);
    let output = run(&["data", "fetch", "cifar10", "--from", &server.base], data.path());
    refused(&output, &["c32a1d4ab5d03f1284b67883e8d87530", "hint"]);
    assert!(files(data.path()).is_empty());
}

#[test]
fn hostile_archives_write_nothing() {
    let link = |tar: &mut tar::Builder<Vec<u8>>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("{ROOT}/door"), "../../..").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        tar.append_data(&mut header, format!("{ROOT}/door/evil"), &b"evil"[..]).unwrap();
    };
    let out = |tar: &mut tar::Builder<Vec<u8>>| {
        let mut header = tar::Header::new_gnu();
        let name = b"cifar-10-batches-bin/../../../evil";
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(4);
        header.set_cksum();
        tar.append(&header, &b"evil"[..]).unwrap();
    };
    let bomb = |tar: &mut tar::Builder<Vec<u8>>| {
        let mut header = tar::Header::new_gnu();
        header.set_size(300 << 20);
        let zeros = std::io::Read::take(std::io::repeat(0), 300 << 20);
        tar.append_data(&mut header, format!("{ROOT}/zeros"), zeros).unwrap();
    };
    let good: &[(&str, &[u8])] = &[("cifar-10-batches-bin/data_batch_1.bin", b"first")];
    for (bytes, words) in [
        (archive(good, link), ["door", "symbolic link"]),
        (archive(good, out), ["evil", "`..`"]),
        (archive(good, bomb), ["zeros", "bytes"]),
    ] {
        let (data, _server, output) = fetch_cifar(vec![whole(&bytes)], &bytes);
        refused(&output, &[words[0], words[1], ARCHIVE, "nothing was unpacked"]);
        assert!(files(data.path()).is_empty(), "{:?}", files(data.path()));
    }
}

#[test]
fn what_cannot_be_fetched() {
    let data = tempfile::tempdir().unwrap();
    refused(
        &run(&["data", "fetch", "imagenet"], data.path()),
        &["image-net.org", "ILSVRC2012_img_train.tar", "<wnid>"],
    );
    refused(&run(&["data", "fetch", "cifar"], data.path()), &["`cifar`", "cifar10, cifar100"]);
    refused(&run(&["data", "verify", "svhn"], data.path()), &["svhn", "data fetch svhn"]);
    refused(&run(&["data", "fetch", "svhn", "--from", "somewhere"], data.path()), &["somewhere", "http://"]);
    let from = ["--from", "http://127.0.0.1:1"];
    refused(&run(&[&["data", "fetch", "cifar10", "--sha256", "abc"], &from[..]].concat(), data.path()), &["64"]);
    refused(&run(&["weights", "fetch", "vit"], data.path()), &["`vit`", "deit_tiny_patch16_224"]);
    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(vec![status("404 Not Found", "")]);
    let output = run(&["data", "fetch", "svhn", "--from", &server.base], data.path());
    refused(&output, &["404", "train_32x32.mat", "without a network"]);
    assert!(files(data.path()).is_empty());
}

#[test]
fn lists_and_what_is_inside_the_program() {
    let data = tempfile::tempdir().unwrap();
    let text = stdout(&run(&["data", "list"], data.path()));
    for words in ["digits", "inside the program", "cifar100", "73,257", "1,281,167", "quee data fetch svhn"] {
        assert!(text.contains(words), "`{words}` is missing in: {text}");
    }
    let text = stdout(&run(&["data", "verify", "digits"], data.path()));
    assert!(text.contains("1,797 training and 0 test pictures, complete"), "{text}");
    fs::create_dir(data.path().join("digits")).unwrap();
    let bytes = fs::read(workspace().join("assets/digits/digits.bin")).unwrap();
    fs::write(data.path().join("digits/digits.bin"), &bytes[..5000]).unwrap();
    refused(&run(&["data", "verify", "digits"], data.path()), &["broken", "UNREADABLE", "digits.bin"]);
}

#[test]
fn weights_with_and_without_a_published_checksum() {
    let data = tempfile::tempdir().unwrap();
    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(vec![whole(b"not the weights"), whole(b"some weights"), whole(b"other weights")]);
    let fetch = |name: &str| run(&["weights", "fetch", name, "--from", &server.base], data.path());
    refused(&fetch("deit_tiny_patch16_224"), &["sha256", "a1311bcf"]);
    assert!(files(data.path()).is_empty());

    let file = data.path().join("weights/t2t_vit_7.pth.tar");
    let text = stdout(&fetch("t2t_vit_7"));
    assert!(text.contains(&sha256(b"some weights")) && text.contains("none is published"), "{text}");
    assert_eq!(server.requests()[1], "GET /71.7_T2T_ViT_7.pth.tar HTTP/1.1");
    assert!(stdout(&fetch("t2t_vit_7")).contains("was there already"));
    assert!(stdout(&run(&["weights", "list"], data.path())).contains(file.to_str().unwrap()));
    // The first download has set the measure for later ones.
    fs::remove_file(&file).unwrap();
    refused(&fetch("t2t_vit_7"), &[&sha256(b"some weights"), &sha256(b"other weights")]);
    assert_eq!(files(data.path()), ["weights/t2t_vit_7.pth.tar.sha256"]);
}

#[test]
#[cfg(unix)]
fn ctrl_c_keeps_what_has_come() {
    let bytes = small_cifar();
    let data = tempfile::tempdir().unwrap();
    let sum = sha256(&bytes);
    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(vec![stuck(&bytes, 50_000, std::time::Duration::from_secs(3))]);
    let args = ["data", "fetch", "cifar10", "--from", &server.base, "--sha256", &sum];
    let mut command = command(&args, data.path());
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let part = data.path().join("cifar10").join(format!("{ARCHIVE}.part"));
    let started = std::time::Instant::now();
    while fs::metadata(&part).map_or(0, |m| m.len()) < 50_000 && started.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("goes on from there"), "{}", stderr(&output));
    assert_eq!(fs::metadata(&part).unwrap().len(), 50_000);

    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(vec![rest(&bytes, 50_000)]);
    let args = ["data", "fetch", "cifar10", "--from", &server.base, "--sha256", &sum];
    assert!(run(&args, data.path()).status.success());
    assert_eq!(server.header(0, "range").as_deref(), Some("bytes=50000-"));
}

/// Fetches into a small file system of its own.
#[cfg(target_os = "linux")]
fn fetch_onto(options: &str, words: &[&str]) {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(mount.path()).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        quee_tests::skipped(&format!("mounting a small file system ({options}) needs the rights of root"));
        return;
    }
    let bytes = small_cifar();
    // Built first: the server does not wait for a compiler.
    program();
    let server = Server::start(vec![whole(&bytes)]);
    let output = run(&["data", "fetch", "cifar10", "--from", &server.base, "--sha256", &sha256(&bytes)], mount.path());
    let mut left = files(mount.path());
    // A checked archive waits for room to be unpacked.
    left.retain(|name| name != &format!("cifar10/{ARCHIVE}"));
    assert!(Command::new("umount").arg(mount.path()).status().is_ok_and(|s| s.success()));
    refused(&output, words);
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn full_and_read_only_disks() {
    // Too small for the archive of 123 kB; room for the archive, but not for its content.
    fetch_onto("size=64k", &["disk is full", "hint"]);
    fetch_onto("size=160k", &["disk is full", "hint"]);
    fetch_onto("ro", &["Read-only", "hint"]);
}

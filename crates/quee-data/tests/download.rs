//! Downloads from a server that misbehaves by script.

mod server;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quee_data::fetch::{Algorithm, Checksum, Download, Downloaded, FetchError, Patience, Progress, download};
use server::{Answer, Server, cut, redirect, rest, status, stuck, whole, without_length};
use tempfile::TempDir;

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    silence: Duration::from_millis(300),
    tries: 3,
    pause: Duration::from_millis(1),
    redirects: 3,
};
const LIMIT: u64 = 1 << 20;

/// 300,000 bytes without a period that a wrong offset could hide behind.
fn body() -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(300_000).collect()
}

/// A folder of its own, a server, and what the file should have.
struct Scene {
    folder: TempDir,
    server: Server,
    checksum: Checksum,
}

impl Scene {
    fn new(script: Vec<Answer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reference = folder.path().join("reference");
        fs::write(&reference, body()).unwrap();
        let hex = Algorithm::Md5.of_file(&reference).unwrap().into();
        fs::remove_file(reference).unwrap();
        let checksum = Checksum { algorithm: Algorithm::Md5, hex };
        Self { folder, server: Server::start(script), checksum }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("file.bin")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("file.bin.part")
    }

    fn fetch_with(
        &self,
        checksum: Option<&Checksum>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Downloaded, FetchError> {
        let url = format!("{}/file.bin", self.server.base);
        let target = self.target();
        let request = Download { url: &url, target: &target, checksum, limit: LIMIT, patience: PATIENCE };
        download(&request, watch)
    }

    fn fetch(&self) -> Result<Downloaded, FetchError> {
        self.fetch_with(Some(&self.checksum), &mut |_| ControlFlow::Continue(()))
    }

    /// The file is there, byte for byte, and nothing else.
    fn complete(&self) {
        assert!(fs::read(self.target()).unwrap() == body(), "the bytes differ");
        assert_eq!(names(self.folder.path()), ["file.bin"]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_whole_file_with_progress() {
    let scene = Scene::new(vec![whole(&body())]);
    let mut seen = Vec::new();
    let done = scene.fetch_with(Some(&scene.checksum), &mut |progress| {
        assert_eq!(progress.what, "file.bin");
        seen.push((progress.have, progress.total));
        ControlFlow::Continue(())
    });
    assert_eq!(done.unwrap(), Downloaded::Fresh { bytes: 300_000, resumed: 0 });
    scene.complete();
    assert!(seen.is_sorted() && seen.len() > 2 && *seen.last().unwrap() == (300_000, Some(300_000)));
    // The second call needs no server.
    assert_eq!(scene.fetch().unwrap(), Downloaded::AlreadyThere);
    assert_eq!(scene.server.requests(), ["GET /file.bin HTTP/1.1"]);
}

#[test]
fn a_connection_that_breaks_is_resumed_where_it_broke() {
    let body = body();
    let scene = Scene::new(vec![cut(&body, 100_001), rest(&body, 100_001)]);
    scene.fetch().unwrap();
    scene.complete();
    assert_eq!(scene.server.header(0, "range"), None);
    assert_eq!(scene.server.header(1, "range").as_deref(), Some("bytes=100001-"));
    assert_eq!(scene.server.header(1, "if-range").as_deref(), Some("\"v1\""));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let body = body();
    let scene = Scene::new(vec![cut(&body, 100_001), whole(&body)]);
    scene.fetch().unwrap();
    scene.complete();
    assert_eq!(scene.server.requests().len(), 2);
}

#[test]
fn a_range_that_does_not_fit_starts_again() {
    let body = body();
    let scene = Scene::new(vec![cut(&body, 100_001), rest(&body, 100_000), whole(&body)]);
    scene.fetch().unwrap();
    scene.complete();
    assert_eq!(scene.server.header(2, "range"), None);
}

#[test]
fn a_range_beyond_the_end() {
    // All had come, only the end of the connection had not been seen.
    let scene = Scene::new(vec![status("416 Range Not Satisfiable", "Content-Range: bytes */300000\r\n")]);
    fs::write(scene.part(), body()).unwrap();
    scene.fetch().unwrap();
    scene.complete();
    // More than all: the remains are of something else.
    let scene = Scene::new(vec![status("416 Range Not Satisfiable", ""), whole(&body())]);
    fs::write(scene.part(), vec![7; 300_001]).unwrap();
    scene.fetch().unwrap();
    scene.complete();
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let mut wrong = body();
    wrong[299_999] ^= 1;
    let scene = Scene::new(vec![whole(&wrong)]);
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("md5") && message.contains(&*scene.checksum.hex) && message.contains("hint"), "{message}");
    assert!(names(scene.folder.path()).is_empty());
}

#[test]
fn remains_of_another_file_are_replaced() {
    let body = body();
    let scene = Scene::new(vec![rest(&body, 1000), whole(&body)]);
    fs::write(scene.part(), vec![0; 1000]).unwrap();
    assert_eq!(scene.fetch().unwrap(), Downloaded::Fresh { bytes: 300_000, resumed: 0 });
    scene.complete();
}

#[test]
fn redirects_are_followed_up_to_a_number() {
    let scene = Scene::new(vec![redirect("/elsewhere"), whole(&body())]);
    scene.fetch().unwrap();
    scene.complete();
    assert_eq!(scene.server.requests()[1], "GET /elsewhere HTTP/1.1");

    let scene = Scene::new((0..20).map(|_| redirect("/again")).collect());
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("redirects") && message.contains("hint"), "{message}");
    assert_eq!(scene.server.requests().len(), 4);
    assert!(names(scene.folder.path()).is_empty());
}

#[test]
fn a_redirect_keeps_the_range() {
    let body = body();
    let scene = Scene::new(vec![cut(&body, 5), redirect("/elsewhere"), rest(&body, 5)]);
    scene.fetch().unwrap();
    scene.complete();
    assert_eq!(scene.server.header(2, "range").as_deref(), Some("bytes=5-"));
}

#[test]
fn not_found_is_final() {
    let scene = Scene::new(vec![status("404 Not Found", ""), whole(&body())]);
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("404") && message.contains("hint") && message.contains("file.bin"), "{message}");
    assert_eq!(scene.server.requests().len(), 1);
    assert!(names(scene.folder.path()).is_empty());
}

#[test]
fn faults_of_the_server_pass_or_not() {
    let scene = Scene::new(vec![status("500 Internal Server Error", ""), status("503 Busy", ""), whole(&body())]);
    scene.fetch().unwrap();
    scene.complete();
    let scene = Scene::new((0..9).map(|_| status("500 Internal Server Error", "")).collect());
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("3 times") && message.contains("500"), "{message}");
    assert_eq!(scene.server.requests().len(), 3);
}

#[test]
fn silent_and_closed_connections_are_tried_again() {
    let body = body();
    let nothing = Answer::Bytes(Vec::new());
    let silent = stuck(&body, 200_000, Duration::from_millis(600));
    let scene = Scene::new(vec![nothing, silent, rest(&body, 200_000)]);
    scene.fetch().unwrap();
    scene.complete();
    assert_eq!(scene.server.header(2, "range").as_deref(), Some("bytes=200000-"));
}

#[test]
fn a_server_that_gives_little_at_a_time_is_given_up() {
    let body = body();
    let drip = (0..40).map(|i| if i == 0 { cut(&body, 1) } else { short_rest(&body, i) });
    let scene = Scene::new(drip.collect());
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("30 times") && message.contains("30 bytes have come"), "{message}");
    assert_eq!(names(scene.folder.path()), ["file.bin.part"]);
}

/// One byte of a range that goes to the end.
fn short_rest(body: &[u8], start: usize) -> Answer {
    let Answer::Bytes(mut bytes) = rest(body, start) else { unreachable!() };
    bytes.truncate(bytes.len() - (body.len() - start) + 1);
    Answer::Bytes(bytes)
}

#[test]
fn files_that_are_too_large() {
    let endless = vec![1; 2 * LIMIT as usize];
    for answer in [without_length(&endless), whole(&endless)] {
        let scene = Scene::new(vec![answer]);
        let message = scene.fetch().unwrap_err().to_string();
        assert!(message.contains("larger than 1048576 bytes"), "{message}");
        assert!(names(scene.folder.path()).is_empty());
    }
}

#[test]
fn nobody_listens() {
    let scene = Scene::new(Vec::new());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, target) = (format!("http://{free}/file.bin"), scene.target());
    let request =
        Download { url: &url, target: &target, checksum: Some(&scene.checksum), limit: LIMIT, patience: PATIENCE };
    let message = download(&request, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(message.contains("without a network") && message.contains(target.to_str().unwrap()), "{message}");
    assert!(names(scene.folder.path()).is_empty());
}

#[test]
fn a_file_put_there_by_hand_needs_no_network() {
    let scene = Scene::new(Vec::new());
    fs::write(scene.target(), body()).unwrap();
    assert_eq!(scene.fetch().unwrap(), Downloaded::AlreadyThere);
    fs::write(scene.target(), "something else").unwrap();
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("file.bin") && message.contains("remove it"), "{message}");
    assert_eq!(fs::read(scene.target()).unwrap(), b"something else");
}

#[test]
fn a_stopped_download_goes_on_in_the_next_call() {
    let body = body();
    let scene = Scene::new(vec![whole(&body)]);
    let stopped = scene.fetch_with(Some(&scene.checksum), &mut |progress| {
        if progress.have > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(FetchError::Stopped { .. })), "{stopped:?}");
    assert_eq!(names(scene.folder.path()), ["file.bin.part"]);
    let kept = fs::read(scene.part()).unwrap();
    assert!(!kept.is_empty() && body.starts_with(&kept));

    let again = Scene { server: Server::start(vec![rest(&body, kept.len())]), ..scene };
    assert_eq!(again.fetch().unwrap(), Downloaded::Fresh { bytes: 300_000, resumed: kept.len() as u64 });
    again.complete();
    assert_eq!(again.server.header(0, "range"), Some(format!("bytes={}-", kept.len())));
}

#[test]
fn without_a_checksum_a_call_starts_again_and_needs_a_length() {
    let body = body();
    let go_on = &mut |_: Progress<'_>| ControlFlow::Continue(());
    let scene = Scene::new(vec![whole(&body)]);
    fs::write(scene.part(), &body[..1000]).unwrap();
    scene.fetch_with(None, go_on).unwrap();
    scene.complete();
    assert_eq!(scene.server.header(0, "range"), None);

    let scene = Scene::new(vec![without_length(&body)]);
    let message = scene.fetch_with(None, go_on).unwrap_err().to_string();
    assert!(message.contains("how long") && message.contains("hint"), "{message}");
    assert!(names(scene.folder.path()).is_empty());
}

#[test]
fn addresses_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["ftp://127.0.0.1/x", "file.bin", "http://", "http://[", ""] {
        let request =
            Download { url, target: &folder.path().join("x"), checksum: None, limit: LIMIT, patience: PATIENCE };
        let error = download(&request, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, FetchError::Address { .. }), "{url}: {error}");
        assert!(names(folder.path()).is_empty());
    }
}

#[test]
fn two_downloads_of_one_file() {
    let scene = Scene::new(vec![whole(&body())]);
    let busy = fs::File::create(scene.part()).unwrap();
    busy.lock().unwrap();
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("another process"), "{message}");
    drop(busy);
    scene.fetch().unwrap();
    scene.complete();
}

/// Downloads into a small file system of its own; what is left there.
#[cfg(target_os = "linux")]
fn download_on(options: &str, words: &[&str]) {
    let mount = tempfile::tempdir().unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(mount.path()).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        // Written past the test harness, which shows no output of tests that pass.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: mounting a small file system ({options}) needs the rights of root\n"),
        );
        return;
    }
    let scene = Scene::new(vec![whole(&body())]);
    let (url, target) = (format!("{}/file.bin", scene.server.base), mount.path().join("file.bin"));
    let request =
        Download { url: &url, target: &target, checksum: Some(&scene.checksum), limit: LIMIT, patience: PATIENCE };
    let result = download(&request, &mut |_| ControlFlow::Continue(()));
    let left = names(mount.path());
    let unmounted = std::process::Command::new("umount").arg(mount.path()).status();
    assert!(unmounted.is_ok_and(|s| s.success()));
    let message = result.unwrap_err().to_string();
    for word in words.iter().chain([&"file.bin", &"hint"]) {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    download_on("size=128k", &["disk is full"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_only_disk() {
    download_on("ro", &["Read-only"]);
}

//! An HTTP server that answers one connection after the other as its script says.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What one connection gets.
pub enum Answer {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes, then nothing for a while.
    Silence(Vec<u8>, Duration),
}

pub struct Server {
    pub base: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Waits at most a minute for each connection of the script.
    pub fn start(script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        thread::spawn(move || {
            for answer in script {
                let Some(stream) = accept(&listener) else { return };
                serve(stream, answer, &seen);
            }
        });
        Self { base, heads }
    }

    /// First line of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().iter().map(|h| h.lines().next().unwrap_or("").to_owned()).collect()
    }

    /// A header of request `n`, counted from 0.
    pub fn header(&self, n: usize, name: &str) -> Option<String> {
        let heads = self.heads.lock().unwrap();
        let mut fields = heads[n].lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }
}

fn accept(listener: &TcpListener) -> Option<TcpStream> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if let Ok((stream, _)) = listener.accept() {
            return Some(stream);
        }
        thread::sleep(Duration::from_millis(2));
    }
    None
}

fn serve(mut stream: TcpStream, answer: Answer, seen: &Mutex<Vec<String>>) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16384 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    // A client that has seen enough may be gone: no failure of the server.
    match answer {
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Answer::Silence(bytes, pause) => {
            let _ = stream.write_all(&bytes);
            thread::sleep(pause);
        }
    }
}

fn message(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{fields}\r\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// The whole file.
pub fn whole(body: &[u8]) -> Answer {
    cut(body, body.len())
}

/// The whole file promised, `sent` bytes of it sent.
pub fn cut(body: &[u8], sent: usize) -> Answer {
    let fields = format!("Content-Length: {}\r\nETag: \"v1\"\r\n", body.len());
    Answer::Bytes(message("200 OK", &fields, &body[..sent]))
}

/// As [`cut`], and then silence in place of the end.
pub fn stuck(body: &[u8], sent: usize, pause: Duration) -> Answer {
    let Answer::Bytes(bytes) = cut(body, sent) else { unreachable!() };
    Answer::Silence(bytes, pause)
}

/// The file from `start`.
pub fn rest(body: &[u8], start: usize) -> Answer {
    let (end, total) = (body.len() - 1, body.len());
    let fields = format!("Content-Length: {}\r\nContent-Range: bytes {start}-{end}/{total}\r\n", total - start);
    Answer::Bytes(message("206 Partial Content", &fields, &body[start..]))
}

/// A file of unknown length.
pub fn without_length(body: &[u8]) -> Answer {
    Answer::Bytes(message("200 OK", "", body))
}

/// A status and nothing else.
pub fn status(status: &str, fields: &str) -> Answer {
    Answer::Bytes(message(status, &format!("Content-Length: 0\r\n{fields}"), b""))
}

/// A redirect.
pub fn redirect(to: &str) -> Answer {
    status("302 Found", &format!("Location: {to}\r\n"))
}

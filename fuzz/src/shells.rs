//! Shells that put a fuzzer's bytes where the parser wants them.
//!
//! Checksums stop a fuzzer: it cannot guess them. Targets of formats that have some therefore read the bytes twice, as they are and with
//! the checksums put right.

use sha2::{Digest, Sha256};

/// A MATLAB 5 file whose only element is `array`, an element of its own, compressed.
pub fn mat_compressed(array: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::none());
    packed.write_all(array).expect("memory takes everything");
    let packed = packed.finish().expect("memory takes everything");
    let mut file = mat_head();
    file.extend(15_u32.to_le_bytes());
    file.extend((packed.len() as u32).to_le_bytes());
    file.extend(packed);
    file
}

/// The head of a MATLAB 5 file.
pub fn mat_head() -> Vec<u8> {
    let mut file = b"MATLAB 5.0".to_vec();
    file.resize(124, b' ');
    file.extend([0, 1, b'I', b'M']);
    file
}

/// A zip archive of `entries`, not compressed, with right checksums.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = file.len() as u32;
        // Version, flags, method, time and date, CRC, both sizes, lengths of the name and of more.
        let mut common = vec![10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(checksum(bytes).to_le_bytes());
        common.extend((bytes.len() as u32).to_le_bytes());
        common.extend((bytes.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(*bytes);
        directory.extend(b"PK\x01\x02");
        directory.extend([10, 0]);
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, length, count) = (file.len() as u32, directory.len() as u32, entries.len() as u16);
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// The CRC-32 of zip archives.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// What a checkpoint from before PyTorch 1.6 begins with: pickles of a magic number, a version and facts about the machine.
pub const LEGACY_START: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00X\x0d\x00\x00\x00little_endianq\x01\x88s.";

/// Bytes of a store's header before the description.
const FIXED: usize = 48;

/// Puts the checksum of a store's header right; its end and its checksum, where the bytes reach so far.
pub fn mend_header(bytes: &mut [u8]) -> Option<(usize, [u8; 32])> {
    let description = u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?) as usize;
    let end = FIXED.checked_add(description)?;
    let sum: [u8; 32] = Sha256::digest(bytes.get(..end)?).into();
    bytes.get_mut(end..end + 32)?.copy_from_slice(&sum);
    Some((end + 32, sum))
}

/// Puts the length and the checksum at the end of an entry right.
pub fn mend_entry(bytes: &mut [u8]) {
    let Some((start, sum)) = mend_header(bytes) else { return };
    let Some(end) = bytes.len().checked_sub(40).filter(|end| *end >= start) else { return };
    let length = ((end - start) as u64).to_le_bytes();
    let whole = Sha256::new().chain_update(sum).chain_update(&bytes[start..end]).chain_update(length).finalize();
    bytes[end..end + 8].copy_from_slice(&length);
    bytes[end + 8..].copy_from_slice(&whole);
}

/// Puts the checksums of a part file right, as far as its lengths lead.
pub fn mend_parts(bytes: &mut [u8]) {
    let Some((mut at, sum)) = mend_header(bytes) else { return };
    while let Some(head) = bytes.get(at..at + FIXED) {
        let length = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
        let end = usize::try_from(length).ok().and_then(|length| (at + FIXED).checked_add(length));
        let Some(payload) = end.and_then(|end| bytes.get(at + FIXED..end)) else { return };
        let whole = Sha256::new().chain_update(sum).chain_update(&head[..16]).chain_update(payload).finalize();
        let next = at + FIXED + payload.len();
        bytes[at + 16..at + FIXED].copy_from_slice(&whole);
        at = next;
    }
}

/// The key that a file of the store states; that of zeros where it is too short for one.
pub fn stated_key(bytes: &[u8]) -> quee_store::KeyHash {
    let stated = bytes.get(16..FIXED).and_then(|key| key.try_into().ok());
    quee_store::KeyHash::from_bytes(stated.unwrap_or_default())
}

/// Of an input for `quantizers`: the notes, and the file of tensors after the first byte 0.
pub fn notes_and_tensors(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

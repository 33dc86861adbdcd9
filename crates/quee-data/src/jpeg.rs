//! Whether a JPEG file is whole. Decoders fill what is missing with grey.

/// Whether the end-of-image marker is reached when the segments are followed (ITU-T T.81, annex B). Bytes behind the
/// marker don't matter; the content of the segments isn't looked at.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    ends(bytes).is_some()
}

/// Place behind the end-of-image marker.
fn ends(bytes: &[u8]) -> Option<usize> {
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    let mut at = 2;
    loop {
        // To the next marker: 0xFF and another byte. Decoders skip what lies between segments, and so does this.
        while *bytes.get(at)? != 0xFF {
            at += 1;
        }
        while *bytes.get(at)? == 0xFF {
            at += 1;
        }
        let marker = *bytes.get(at)?;
        at += 1;
        match marker {
            END_OF_IMAGE => return Some(at),
            // A stuffed zero, restarts, start of image, and the temporary marker have no content.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let length = bytes.get(at..at + 2)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if marker == START_OF_SCAN {
                    // Coded data up to a marker that is neither a stuffed zero nor a restart.
                    while !matches!(bytes.get(at..at + 2)?, [0xFF, next] if !matches!(next, 0x00 | 0xD0..=0xD7)) {
                        at += 1;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photograph() -> Vec<u8> {
        let mut bytes = Vec::new();
        let picture =
            image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]));
        image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&picture).unwrap();
        bytes
    }

    #[test]
    fn a_file_is_complete_only_with_its_last_byte() {
        let bytes = photograph();
        assert!(is_complete(&bytes));
        for length in 0..bytes.len() {
            assert!(!is_complete(&bytes[..length]), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_preview_inside_a_segment_is_not_the_end() {
        let bytes = photograph();
        let mut whole = bytes[..2].to_vec();
        whole.extend([0xFF, 0xE1]);
        whole.extend((bytes.len() as u16 + 2).to_be_bytes());
        whole.extend(&bytes);
        whole.extend(&bytes[2..]);
        assert_eq!(ends(&whole), Some(whole.len()));
        whole.extend(b"camera notes");
        assert!(is_complete(&whole));
        assert!(!is_complete(&whole[..bytes.len() + 20]));
    }
}

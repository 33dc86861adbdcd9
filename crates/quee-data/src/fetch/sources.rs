//! Where each data set comes from.

use super::{Checksum, FetchError, Limits};
use crate::PartSizes;
use crate::catalog::official_size;

/// A data set that quee knows.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: &'static str,
    /// Number of classes.
    pub classes: usize,
    /// Under which terms it may be used.
    pub terms: &'static str,
    /// Where to get it.
    pub origin: Origin,
}

/// Where to get a data set.
#[derive(Debug)]
pub enum Origin {
    /// It is a part of the program.
    Inside,
    /// Files that are used as they are.
    Files(&'static [RemoteFile]),
    /// An archive with one folder in it.
    Archive {
        /// The archive.
        file: RemoteFile,
        /// The folder.
        root: &'static str,
        /// How much it may hold.
        limits: Limits,
    },
    /// Only by hand, in the words given.
    ByHand(&'static str),
}

/// A file at a public address.
#[derive(Debug)]
pub struct RemoteFile {
    /// Address of the folder it lies in, without a slash at the end.
    pub base: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its size, for display and as the measure of what is too large.
    pub bytes: u64,
    /// Its published checksum.
    pub checksum: Checksum,
}

const CIFAR: &str = "https://www.cs.toronto.edu/~kriz";
const CIFAR_TERMS: &str = "no formal licence; cite A. Krizhevsky, \"Learning Multiple Layers of Features from Tiny Images\", 2009 (https://www.cs.toronto.edu/~kriz/cifar.html)";
// Both archives unpack to 185 MB.
const CIFAR_LIMITS: Limits = Limits { bytes: 256 << 20, entries: 64 };
const SVHN: &str = "http://ufldl.stanford.edu/housenumbers";

/// All data sets, in the order in which they are listed.
pub static SOURCES: &[Source] = &[
    Source {
        name: "digits",
        classes: 10,
        terms: "CC BY 4.0; E. Alpaydin, C. Kaynak, \"Optical Recognition of Handwritten Digits\", UCI Machine Learning Repository, 1998",
        origin: Origin::Inside,
    },
    Source {
        name: "cifar10",
        classes: 10,
        terms: CIFAR_TERMS,
        origin: Origin::Archive {
            file: RemoteFile {
                base: CIFAR,
                name: "cifar-10-binary.tar.gz",
                bytes: 170_052_171,
                checksum: Checksum::md5("c32a1d4ab5d03f1284b67883e8d87530"),
            },
            root: "cifar-10-batches-bin",
            limits: CIFAR_LIMITS,
        },
    },
    Source {
        name: "cifar100",
        classes: 100,
        terms: CIFAR_TERMS,
        origin: Origin::Archive {
            file: RemoteFile {
                base: CIFAR,
                name: "cifar-100-binary.tar.gz",
                bytes: 168_513_733,
                checksum: Checksum::md5("03b5dce01913d631647c71ecec9e9cb8"),
            },
            root: "cifar-100-binary",
            limits: CIFAR_LIMITS,
        },
    },
    Source {
        name: "svhn",
        classes: 10,
        terms: "NON-COMMERCIAL use only; cite Y. Netzer et al., \"Reading Digits in Natural Images with Unsupervised Feature Learning\", NIPS workshop 2011 (http://ufldl.stanford.edu/housenumbers)",
        origin: Origin::Files(&[
            RemoteFile {
                base: SVHN,
                name: "train_32x32.mat",
                bytes: 182_040_794,
                checksum: Checksum::md5("e26dedcc434d2e4c54c9b2d4a06d8373"),
            },
            RemoteFile {
                base: SVHN,
                name: "test_32x32.mat",
                bytes: 64_275_384,
                checksum: Checksum::md5("eb5a983be6a315427106f1b164d9cef3"),
            },
        ]),
    },
    Source {
        name: "imagenet",
        classes: 1000,
        terms: "NON-COMMERCIAL research and educational use only; cite O. Russakovsky et al., \"ImageNet Large Scale Visual Recognition Challenge\", IJCV 2015 (https://www.image-net.org/download)",
        origin: Origin::ByHand(
            "register at https://www.image-net.org/download, get ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6.3 GB), and unpack them into one folder per class: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, where <wnid> is e.g. n01440764. The training archive holds one tar file per class; the class of each validation picture is in ILSVRC2012_devkit_t12.tar.gz",
        ),
    },
];

/// The data set `name`.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Source, FetchError> {
    let known = || SOURCES.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    SOURCES.iter().find(|s| s.name == name).ok_or_else(|| FetchError::UnknownName {
        what: "data set",
        name: name.into(),
        known: known(),
    })
}

impl Source {
    /// Pictures of its official parts.
    pub fn size(&self) -> PartSizes {
        official_size(self.name).unwrap_or(PartSizes { train: 0, test: 0 })
    }

    /// The files to download.
    pub fn files(&self) -> &[RemoteFile] {
        match &self.origin {
            Origin::Files(files) => files,
            Origin::Archive { file, .. } => std::slice::from_ref(file),
            Origin::Inside | Origin::ByHand(_) => &[],
        }
    }

    /// One sentence on how to get it.
    pub fn how(&self) -> String {
        match &self.origin {
            Origin::Inside => "it is a part of the program".into(),
            Origin::ByHand(how) => (*how).into(),
            Origin::Files(_) | Origin::Archive { .. } => {
                let megabytes = self.files().iter().map(|f| f.bytes).sum::<u64>() / 1_000_000;
                format!("`quee data fetch {}` downloads {megabytes} MB", self.name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Algorithm;

    #[test]
    fn every_entry_is_well_formed() {
        for source in SOURCES {
            assert!(source.terms.len() > 20, "{}", source.name);
            assert!(crate::NAMES.contains(&source.name) && source.size().train > 0, "{}", source.name);
            for file in source.files() {
                let digits = if file.checksum.algorithm == Algorithm::Md5 { 32 } else { 64 };
                assert_eq!(file.checksum.hex.len(), digits, "{}", file.name);
                assert!(file.checksum.hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", file.name);
                assert!(file.base.starts_with("http") && !file.base.ends_with('/'), "{}", file.base);
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = find("cifar").unwrap_err().to_string();
        assert!(message.contains("`cifar`") && message.contains("cifar100") && message.contains("hint"), "{message}");
    }
}

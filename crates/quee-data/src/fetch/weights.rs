//! Where published weights come from, and where they lie.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Algorithm, Checksum, Download, Downloaded, FetchError, Patience, Watch, download};

/// Weights at a public address.
#[derive(Debug)]
pub struct PublishedWeights {
    /// Name of the backbone, as timm has it.
    pub name: &'static str,
    /// Address of the folder, without a slash at the end.
    pub base: &'static str,
    /// Name of the file there.
    pub file: &'static str,
    /// Ending of the file here: `safetensors`, `pth` or `pth.tar`.
    pub extension: &'static str,
    /// What is published of its checksum.
    pub checksum: Option<Checksum>,
    /// Licence.
    pub terms: &'static str,
}

/// Endings under which weights are looked for, the best first.
pub const EXTENSIONS: &[&str] = &["safetensors", "pth", "pth.tar"];

/// No file of weights listed here is larger.
const LIMIT: u64 = 1 << 30;

const DEIT: &str = "https://dl.fbaipublicfiles.com/deit";
const DEIT_TERMS: &str = "Apache-2.0; H. Touvron et al., \"Training data-efficient image transformers & distillation through attention\", 2021";
const T2T: &str = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main";
const T2T_TERMS: &str = "BSD-3-Clause-Clear; L. Yuan et al., \"Tokens-to-Token ViT\", 2021";
const AUGREG_TERMS: &str = "Apache-2.0; A. Steiner et al., \"How to train your ViT?\", 2021, as timm distributes it (trained on ImageNet-21k, fine-tuned on ImageNet-1k)";

/// DeiT: the file names carry the first eight digits of the sha256.
const fn deit(name: &'static str, file: &'static str, digits: &'static str) -> PublishedWeights {
    PublishedWeights {
        name,
        base: DEIT,
        file,
        extension: "pth",
        checksum: Some(Checksum::sha256(digits)),
        terms: DEIT_TERMS,
    }
}

/// timm's distribution of the AugReg weights, at a fixed revision.
const fn augreg(name: &'static str, base: &'static str, sha256: &'static str) -> PublishedWeights {
    PublishedWeights {
        name,
        base,
        file: "model.safetensors",
        extension: "safetensors",
        checksum: Some(Checksum::sha256(sha256)),
        terms: AUGREG_TERMS,
    }
}

const fn t2t(name: &'static str, file: &'static str) -> PublishedWeights {
    PublishedWeights { name, base: T2T, file, extension: "pth.tar", checksum: None, terms: T2T_TERMS }
}

/// All published weights that are known, in the order in which they are listed.
pub static PUBLISHED: &[PublishedWeights] = &[
    augreg(
        "vit_tiny_patch16_224",
        "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/7d3afdd0cf93ad84d986eb2d6bcc5812ebd0b106",
        "fecf81b492bd13ee7a5297cb74d1d417aac8bf7e1b7d96aed89c4691984587ed",
    ),
    augreg(
        "vit_small_patch16_224",
        "https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k_ft_in1k/resolve/7e2c55630205e1266030f18370f4c6ed1a514b52",
        "79c03c635cdfd798a364a9d8c4e5c0b7255b975ea2c9616046d4f77ab01435aa",
    ),
    augreg(
        "vit_base_patch16_224",
        "https://huggingface.co/timm/vit_base_patch16_224.augreg2_in21k_ft_in1k/resolve/063c6c38a5d8510b2e57df480445e94b231dad2c",
        "32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
    ),
    deit("deit_tiny_patch16_224", "deit_tiny_patch16_224-a1311bcf.pth", "a1311bcf"),
    deit("deit_small_patch16_224", "deit_small_patch16_224-cd65a155.pth", "cd65a155"),
    deit("deit_base_patch16_224", "deit_base_patch16_224-b5f2ef4d.pth", "b5f2ef4d"),
    deit("deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224-b40b3cf7.pth", "b40b3cf7"),
    deit("deit_small_distilled_patch16_224", "deit_small_distilled_patch16_224-649709d9.pth", "649709d9"),
    deit("deit_base_distilled_patch16_224", "deit_base_distilled_patch16_224-df68dfff.pth", "df68dfff"),
    t2t("t2t_vit_7", "71.7_T2T_ViT_7.pth.tar"),
    t2t("t2t_vit_14", "81.5_T2T_ViT_14.pth.tar"),
];

/// The published weights of a backbone.
///
/// # Errors
/// When none are known.
pub fn find(name: &str) -> Result<&'static PublishedWeights, FetchError> {
    let known = || PUBLISHED.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
    PUBLISHED.iter().find(|w| w.name == name).ok_or_else(|| FetchError::UnknownName {
        what: "published weights",
        name: name.into(),
        known: known(),
    })
}

/// The file `<folder>/<name>.<ending>`, where there is one.
pub fn weights_file(folder: &Path, name: &str) -> Option<PathBuf> {
    EXTENSIONS.iter().map(|ending| folder.join(format!("{name}.{ending}"))).find(|path| path.is_file())
}

/// A file of weights that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsFile {
    /// The file.
    pub path: PathBuf,
    /// How it came.
    pub outcome: Downloaded,
    /// Its sha256.
    pub sha256: String,
    /// What the sha256 was compared with.
    pub compared: Compared,
}

/// What a checksum was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// With the published one, or its first digits.
    Published,
    /// With the one of an earlier download, noted beside the file.
    Noted,
    /// With nothing: none is published, and this is the first download. It has been noted beside the file.
    Nothing,
}

/// Downloads weights into `folder`, unless they are there. Where no checksum is published, the first download notes its
/// own in `<file>.sha256`, in the format of `sha256sum`, and later ones must agree.
///
/// # Errors
/// As [`download`](super::download()).
pub fn fetch_weights(
    weights: &PublishedWeights,
    folder: &Path,
    base: Option<&str>,
    watch: Watch<'_>,
) -> Result<WeightsFile, FetchError> {
    let name = format!("{}.{}", weights.name, weights.extension);
    let path = folder.join(&name);
    let note = folder.join(format!("{name}.sha256"));
    let (checksum, compared) = match &weights.checksum {
        Some(published) => (Some(published.clone()), Compared::Published),
        None => match read_note(&note)? {
            Some(noted) => (Some(noted), Compared::Noted),
            None => (None, Compared::Nothing),
        },
    };
    let base = base.unwrap_or(weights.base).trim_end_matches('/');
    let request = Download {
        url: &format!("{base}/{}", weights.file),
        target: &path,
        checksum: checksum.as_ref(),
        limit: LIMIT,
        patience: Patience::default(),
    };
    let outcome = download(&request, watch)?;
    let sha256 = Algorithm::Sha256.of_file(&path).map_err(|e| FetchError::file(&path, e))?;
    if compared == Compared::Nothing {
        write_note(folder, &note, &format!("{sha256}  {name}\n"))?;
    }
    Ok(WeightsFile { path, outcome, sha256, compared })
}

fn read_note(note: &Path) -> Result<Option<Checksum>, FetchError> {
    match fs::read_to_string(note) {
        Ok(text) => match text.split_whitespace().next().and_then(Checksum::parse_sha256) {
            Some(checksum) => Ok(Some(checksum)),
            None => Err(FetchError::SumsFile { path: note.into(), line: 1 }),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FetchError::file(note, e)),
    }
}

fn write_note(folder: &Path, note: &Path, text: &str) -> Result<(), FetchError> {
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(note)?;
        Ok(())
    };
    write().map_err(|e| FetchError::file(note, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_well_formed() {
        for weights in PUBLISHED {
            assert!(EXTENSIONS.contains(&weights.extension), "{}", weights.name);
            assert!(weights.file.ends_with(weights.extension), "{}", weights.name);
            assert!(weights.base.starts_with("https://") && !weights.base.ends_with('/'), "{}", weights.name);
            if let Some(checksum) = &weights.checksum {
                assert!(matches!(checksum.hex.len(), 8 | 64), "{}", weights.name);
                assert!(checksum.hex.len() == 64 || weights.file.contains(checksum.hex.as_ref()), "{}", weights.name);
            }
        }
    }

    #[test]
    fn safetensors_win_over_pickles() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(weights_file(folder.path(), "x"), None);
        fs::write(folder.path().join("x.pth.tar"), "").unwrap();
        assert_eq!(weights_file(folder.path(), "x"), Some(folder.path().join("x.pth.tar")));
        fs::write(folder.path().join("x.safetensors"), "").unwrap();
        assert_eq!(weights_file(folder.path(), "x"), Some(folder.path().join("x.safetensors")));
    }
}

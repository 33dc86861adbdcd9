//! What can be wrong with data that comes from outside.

/// Settings, files or tables that do not fit together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadsError {
    /// An array has the wrong length.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// The array.
        what: &'static str,
        /// Values it should hold.
        expected: usize,
        /// Values it holds.
        found: usize,
    },
    /// Something that must hold at least one value holds none.
    #[error("{what}: there is nothing to work on")]
    Empty {
        /// The array.
        what: &'static str,
    },
    /// A number is NaN or infinite.
    #[error("{what}: value {index} is not finite (a diverged training or a broken checkpoint does this)")]
    NotFinite {
        /// The array.
        what: &'static str,
        /// Position in the array.
        index: usize,
    },
    /// A setting is outside its range.
    #[error("{what} = {value} is not possible: {hint}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value as text.
        value: String,
        /// What would be possible.
        hint: &'static str,
    },
    /// An outcome is neither right (0), wrong (1) nor absent (255).
    #[error(
        "outcome {value} at prefix {prefix}, suffix {suffix}, sample {sample}: only 0, 1 and 255 (absent) have a meaning"
    )]
    Outcome {
        /// The value found.
        value: u8,
        /// Number of the prefix.
        prefix: usize,
        /// Number of the suffix.
        suffix: usize,
        /// Number of the sample.
        sample: usize,
    },
    /// A sample is assigned to a cell that does not exist.
    #[error("sample {sample} of prefix {prefix} lies in cell {cell}, but there are only {cells} cells")]
    Cell {
        /// The cell named.
        cell: u32,
        /// Number of cells.
        cells: usize,
        /// Number of the prefix.
        prefix: usize,
        /// Number of the sample.
        sample: usize,
    },
    /// Trees could not be trained.
    #[error("trees could not be trained: {reason}")]
    Boosting {
        /// What the library says.
        reason: String,
    },
}

/// Refuses an array of the wrong length.
pub(crate) fn expect_len(what: &'static str, expected: usize, found: usize) -> Result<(), HeadsError> {
    if expected == found { Ok(()) } else { Err(HeadsError::Length { what, expected, found }) }
}

/// Refuses NaN and infinities.
pub(crate) fn expect_finite(what: &'static str, values: &[f32]) -> Result<(), HeadsError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(HeadsError::NotFinite { what, index }),
        None => Ok(()),
    }
}

/// Refuses rows that do not fill a whole number of lines of `dim` values, no rows at all, and NaN; returns their count.
pub(crate) fn expect_rows(what: &'static str, rows: &[f32], dim: usize) -> Result<usize, HeadsError> {
    if dim == 0 || rows.is_empty() {
        return Err(HeadsError::Empty { what });
    }
    let n = rows.len() / dim;
    expect_len(what, n.max(1) * dim, rows.len())?;
    expect_finite(what, rows)?;
    Ok(n)
}

//! What can go wrong with a data file, a picture file or a setting.

use std::path::PathBuf;

/// A data set or picture that cannot be used, with the file, the place in it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A name that is not in [`NAMES`](crate::NAMES).
    #[error("there is no data set `{name}`; hint: the known ones are: {known}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A file that could not be opened or read.
    #[error("{}: {source}; hint: check the path and that you may read the file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file that could not be written.
    #[error("{}: cannot write the picture: {source}; hint: check that the folder exists and that you may write there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the encoder or the operating system says.
        source: image::ImageError,
    },
    /// A file that does not start with the bytes of its format.
    #[error(
        "{origin}: byte 0: starts with `{found}`, not with `{expected}`; hint: is this a file of the {format} format?"
    )]
    WrongMagic {
        /// The file.
        origin: String,
        /// The format expected.
        format: &'static str,
        /// First bytes of that format.
        expected: String,
        /// First bytes of the file, escaped.
        found: String,
    },
    /// A number in the head of a file that the format does not allow.
    #[error(
        "{origin}: byte {offset}: {field} is {value}, allowed is {least} to {most}; hint: the file is damaged or of another format"
    )]
    BadHeader {
        /// The file.
        origin: String,
        /// Place of the number, in bytes.
        offset: usize,
        /// What the number means.
        field: &'static str,
        /// The number.
        value: u32,
        /// Least value allowed.
        least: u32,
        /// Largest value allowed.
        most: u32,
    },
    /// A file that ends early.
    #[error(
        "{origin}: ends at byte {found}, but {what} needs {expected} bytes; hint: the file is cut off, get it again"
    )]
    Truncated {
        /// The file.
        origin: String,
        /// What did not fit.
        what: String,
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A file that goes on after its last picture.
    #[error(
        "{origin}: byte {expected}: {} bytes follow the last picture; hint: the head of the file and its length disagree, get it again",
        found - expected
    )]
    WrongSize {
        /// The file.
        origin: String,
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A label that is not one of the classes.
    #[error(
        "{origin}: byte {offset}: picture {picture} has label {label}, but the {classes} classes are 0 to {}; hint: the file is damaged, get it again",
        classes - 1
    )]
    LabelOutOfRange {
        /// The file.
        origin: String,
        /// Place of the label, in bytes.
        offset: usize,
        /// Picture, from 0.
        picture: usize,
        /// The label.
        label: u16,
        /// Number of classes.
        classes: usize,
    },
    /// A pixel above the largest value of the data set.
    #[error(
        "{origin}: byte {offset}: picture {picture}, row {row}, column {column}: pixel value {value}, but the largest is {max}; hint: the file is damaged, get it again"
    )]
    PixelOutOfRange {
        /// The file.
        origin: String,
        /// Place of the pixel, in bytes.
        offset: usize,
        /// Picture, from 0.
        picture: usize,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The pixel value.
        value: u8,
        /// Largest value allowed.
        max: u8,
    },
    /// A picture file that is neither PNG nor JPEG.
    #[error("{}: not a PNG or JPEG picture; hint: convert it to PNG", path.display())]
    UnsupportedPicture {
        /// The file.
        path: PathBuf,
    },
    /// A PNG or JPEG file that could not be decoded.
    #[error("{}: cannot decode the picture: {source}; hint: the file is damaged or too large, open it in a viewer and save it again", path.display())]
    UnreadablePicture {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        source: image::ImageError,
    },
    /// A JPEG file that ends before its end-of-image marker.
    #[error("{}: byte {bytes}: the picture is cut off; hint: get the file again, or take it out of the folder", path.display())]
    CutOffPicture {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Pictures with a number of channels that is neither 1 nor 3.
    #[error("pictures of {channels} channels are not supported; hint: 1 (grey) and 3 (colour) are")]
    Channels {
        /// The number asked for.
        channels: usize,
    },
    /// A setting of the augmentation out of its range.
    #[error("augment.{field} is {value}; hint: write {allowed}")]
    Augment {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: f32,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A data set that comes with no program and was not found.
    #[error(
        "data set `{name}`: no {wanted} in {}; hint: name its folder, or one that holds it as `{name}`, with --data or QUEE_DATA",
        places.join(", ")
    )]
    NotFound {
        /// The data set.
        name: String,
        /// What was looked for.
        wanted: String,
        /// Where.
        places: Vec<String>,
    },
    /// A MATLAB file that cannot be used.
    #[error("{}: {source}; hint: the file is damaged or of another format, get it again", path.display())]
    Matlab {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        source: crate::mat5::MatError,
    },
    /// A list of class names of the wrong length.
    #[error("{}: {found} names for {classes} classes; hint: one name per line, get the file again", path.display())]
    ClassNames {
        /// The file.
        path: PathBuf,
        /// Names in it.
        found: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A folder of a class that holds no picture.
    #[error("{}: the class folder holds no PNG or JPEG file; hint: put pictures there, or remove the folder", path.display())]
    EmptyClass {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is not arranged as one folder per class.
    #[error("{}: {reason}; hint: one folder per class with its pictures, alone or below train/ and val/", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

//! burn executor (float, autodiff, simulated quantization) and training of backbones, exits and error-prediction heads.
//!
//! - [`BurnExecutor`]: runs a backbone's program on burn tensors; [`ParamStore`]: its parameters as trainable tensors
//! - [`fake_quant`]: quantization simulated in floats
//! - [`training`]: a whole backbone, from the weights of another task or from random ones; [`init`]: those
//! - [`TrainDevice`]: what it is trained on
//! - [`capture`](mod@capture): what quantizers are searched with
//! - [`exits`]: the classifiers of early exits
//! - [`ProductChain`]: the library's own product, to compare kernels with
//! - [`gates`]: the networks that predict probabilities of error
//!
//! # Determinism
//! The same seed gives the same bits whatever the number of threads: a tensor operation runs on one thread (burn is built
//! without its `rayon` feature), work is cut into pieces whose size does not depend on the number of threads, and results
//! are added in the order of the pieces. Processors with other vector instructions may differ in the last bits.

pub mod capture;
mod data;
mod device;
mod error;
mod executor;
pub mod exits;
pub mod fake_quant;
pub mod gates;
pub mod init;
mod network;
mod optimizer;
mod params;
mod peer;
mod tensor;
pub mod training;

pub use device::TrainDevice;
pub use error::TrainError;
pub use executor::{BurnExecutor, flex_device};
pub use exits::{ExitConfig, train_exit};
pub use gates::{GateConfig, GateMember, GateRows, train_gate};
pub use init::{random_weights, reset_head};
pub use optimizer::soft_labels;
pub use params::ParamStore;
pub use peer::ProductChain;
pub use training::{Part, Rule, TrainConfig, TrainState, Trained, train};

//! The form of an encoder block whose quantizers are static and uniform: what comes out is proven from the weights to be in the range of
//! each quantizer's integers, and sums become codes while they are in registers.

mod plan;
mod run;

pub(crate) use plan::FixedBlock;
pub(crate) use run::FixedCodes;

//! From the name of a backend to executors.

use std::sync::Arc;

use quee_backbone::{Executor, QuantPlan};
use quee_cpu::{CpuEngine, Isa};

use crate::recipe::Backend;

/// Makes executors that share one set of quantized weights.
pub trait Engine: Send + Sync {
    /// A new executor, at float width.
    fn executor(&self) -> Box<dyn Executor>;

    /// What runs the operations, e.g. `cpu (avx2)`.
    fn describe(&self) -> String;
}

/// The engine of `backend` with the quantizers of `plan`.
pub fn engine(backend: Backend, plan: Arc<QuantPlan>) -> Arc<dyn Engine> {
    match backend {
        Backend::Cpu => Arc::new(Cpu(CpuEngine::new(plan, Isa::best()))),
    }
}

struct Cpu(Arc<CpuEngine>);

impl Engine for Cpu {
    fn executor(&self) -> Box<dyn Executor> {
        Box::new(self.0.executor())
    }

    fn describe(&self) -> String {
        format!("cpu ({})", self.0.isa())
    }
}

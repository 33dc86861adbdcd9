//! For executors that wrap another one.

/// Inside an `impl Executor`: hands every operation that is never quantized to the executor in field `$inner`.
///
/// What is left to write: `name`, `set_width`, `linear`, `attention_scores` and `attention_values`. The fused forms stay
/// composed of the small ones, so a wrapper sees every operation.
///
/// ```
/// use quee_backbone::{Attention, ExecError, Executor, Linear, Value, forward_plain_operations};
/// use quee_quant::Width;
///
/// struct Loud(Box<dyn Executor>);
///
/// impl Executor for Loud {
///     forward_plain_operations!(0);
///
///     fn name(&self) -> String {
///         self.0.name().to_uppercase()
///     }
///     fn set_width(&mut self, width: Width) -> Result<(), ExecError> {
///         self.0.set_width(width)
///     }
///     fn linear(&mut self, x: &Value, linear: &Linear) -> Result<Value, ExecError> {
///         self.0.linear(x, linear)
///     }
///     fn attention_scores(&mut self, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
///         self.0.attention_scores(qkv, attention)
///     }
///     fn attention_values(&mut self, p: &Value, qkv: &Value, attention: &Attention) -> Result<Value, ExecError> {
///         self.0.attention_values(p, qkv, attention)
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_plain_operations {
    ($inner:tt) => {
        $crate::forward_plain_operations!($inner, but gelu);

        fn gelu(&mut self, x: &$crate::Value) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.gelu(x)
        }
    };
    // For wrappers that watch GELU too.
    ($inner:tt, but gelu) => {
        fn wait(&mut self) -> Result<(), $crate::ExecError> {
            self.$inner.wait()
        }
        fn input(&mut self, shape: &[usize], data: &[f32]) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.input(shape, data)
        }

        fn read(&mut self, x: &$crate::Value) -> Result<Vec<f32>, $crate::ExecError> {
            self.$inner.read(x)
        }

        fn shape(&self, x: &$crate::Value) -> Result<Vec<usize>, $crate::ExecError> {
            self.$inner.shape(x)
        }

        fn select_samples(&mut self, x: &$crate::Value, indices: &[usize]) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.select_samples(x, indices)
        }

        fn unfold(&mut self, x: &$crate::Value, window: &$crate::Window) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.unfold(x, window)
        }

        fn reshape(&mut self, x: &$crate::Value, sample: &[usize]) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.reshape(x, sample)
        }

        fn transpose(&mut self, x: &$crate::Value) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.transpose(x)
        }

        fn slice_features(
            &mut self,
            x: &$crate::Value,
            start: usize,
            length: usize,
        ) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.slice_features(x, start, length)
        }

        fn layer_norm(&mut self, x: &$crate::Value, norm: &$crate::Norm) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.layer_norm(x, norm)
        }

        fn add(&mut self, a: &$crate::Value, b: &$crate::Value) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.add(a, b)
        }

        fn prepend(&mut self, x: &$crate::Value, tokens: &$crate::Param) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.prepend(x, tokens)
        }

        fn add_position(
            &mut self,
            x: &$crate::Value,
            position: &$crate::Param,
        ) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.add_position(x, position)
        }

        fn softmax(&mut self, x: &$crate::Value) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.softmax(x)
        }

        fn performer(
            &mut self,
            kqv: &$crate::Value,
            performer: &$crate::Performer,
        ) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.performer(kqv, performer)
        }

        fn first_tokens(&mut self, x: &$crate::Value, count: usize) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.first_tokens(x, count)
        }

        fn mean_tokens(&mut self, x: &$crate::Value, skip: usize) -> Result<$crate::Value, $crate::ExecError> {
            self.$inner.mean_tokens(x, skip)
        }
    };
}

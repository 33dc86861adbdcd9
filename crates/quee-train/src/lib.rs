//! burn executor (float, autodiff, simulated quantization) and training of backbones, exits and error-prediction heads.

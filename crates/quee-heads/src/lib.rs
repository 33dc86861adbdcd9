//! Gate features, cells, error predictors: inference, calibration and their quality.

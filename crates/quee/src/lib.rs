//! The quee program: recipes, stages, results and reports.

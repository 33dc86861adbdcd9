//! The page that a run leaves behind: [`model`] is what it says, [`render`] draws it.
//!
//! One HTML file with everything inside: style, figures as SVG, no scripts, nothing loaded from anywhere. Every figure is
//! drawn twice, for a desk (and paper) and for a telephone; the style sheet shows one of them.

mod accuracy_cost;
pub mod cells;
pub mod compare;
mod compare_figure;
mod four_way;
pub mod model;
mod page;
mod reliability;
mod series;
mod style;
mod svg;
pub mod sweep;
mod tables;
pub(crate) mod text;
mod timed;
mod usage;
mod windows;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

/// The page as HTML. Text of the report is escaped. What has no number is shown as a dash or left out.
pub fn render(report: &model::Report) -> String {
    page::document(report)
}

/// The page of a sweep as HTML.
pub fn sweep_page(report: &sweep::SweepReport) -> String {
    sweep::document(report)
}

/// The figure of a sweep as an SVG file of its own.
pub fn sweep_svg(report: &sweep::SweepReport) -> String {
    sweep::standalone(report)
}

/// The page of a sweep's cells as HTML.
pub fn cells_page(report: &cells::CellsReport) -> String {
    cells::document(report)
}

/// The page of a comparison of runs as HTML.
pub fn compare_page(report: &compare::CompareReport) -> String {
    compare::document(report)
}

/// The main figure, accuracy against relative cost, as an SVG file of its own, on white.
pub fn accuracy_cost_svg(report: &model::Report) -> String {
    accuracy_cost::standalone(report, &page::circumstances(report))
}

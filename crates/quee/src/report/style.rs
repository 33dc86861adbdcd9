//! Colours and style sheets.
//!
//! The categorical colours are those of Okabe and Ito, which people with any common form of colour blindness tell apart;
//! on a dark page they are lightened.

/// Name, on a light page, on a dark page.
const PALETTE: [(&str, &str, &str); 15] = [
    ("page", "#ffffff", "#14171a"),
    ("inset", "#f4f5f6", "#1f2428"),
    ("ink", "#1c1f23", "#e8eaec"),
    ("soft", "#5c646c", "#a3abb3"),
    ("grid", "#e3e6e8", "#2e353b"),
    ("gone", "#eceef0", "#272d32"),
    ("red", "#b3261e", "#ff8a80"),
    ("good", "#00694d", "#4fd1a5"),
    ("grey", "#7d858c", "#98a1a9"),
    ("blue", "#0072b2", "#4ca6e8"),
    ("sky", "#56b4e9", "#9bd7ff"),
    ("green", "#009e73", "#2fcf9f"),
    ("orange", "#e69f00", "#ffc14a"),
    ("vermillion", "#d55e00", "#ff8540"),
    ("purple", "#cc79a7", "#ee9fca"),
];

const FIGURE: &str = include_str!("figure.css");
const PAGE: &str = include_str!("page.css");

/// From cheap to dear: widths.
const BLUES: [[f64; 3]; 3] = [[207.0, 227.0, 241.0], [86.0, 156.0, 205.0], [14.0, 78.0, 142.0]];
/// From early to late: exits.
const BROWNS: [[f64; 3]; 3] = [[253.0, 226.0, 178.0], [232.0, 140.0, 40.0], [138.0, 60.0, 6.0]];

/// The page's style sheet: light, dark where the reader prefers it, light again on paper.
pub fn page_css() -> String {
    let light = variables(|(_, light, _)| light);
    let dark = variables(|(_, _, dark)| dark);
    format!(
        ":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n\
         @media print{{:root{{color-scheme:light;{light}}}}}\n{FIGURE}{PAGE}"
    )
}

/// The style sheet of a figure in a file of its own: light colours, no variables, which many programs do not know.
pub fn standalone_css() -> String {
    PALETTE.iter().fold(FIGURE.to_owned(), |css, (name, light, _)| css.replace(&format!("var(--{name})"), light))
}

fn variables(pick: impl Fn((&'static str, &'static str, &'static str)) -> &'static str) -> String {
    PALETTE.iter().map(|entry| format!("--{}:{};", entry.0, pick(*entry))).collect()
}

/// Colour `at` of `number` widths, pale for the first, dark for the last.
pub fn width_colour(at: usize, number: usize) -> String {
    ramp(&BLUES, at, number)
}

/// Colour `at` of `number` exits.
pub fn exit_colour(at: usize, number: usize) -> String {
    ramp(&BROWNS, at, number)
}

fn ramp(stops: &[[f64; 3]; 3], at: usize, number: usize) -> String {
    let place = if number < 2 { 1.0 } else { 2.0 * at.min(number - 1) as f64 / (number - 1) as f64 };
    let lower = (place as usize).min(1);
    let share = place - lower as f64;
    let channel = |c: usize| (stops[lower][c] * (1.0 - share) + stops[lower + 1][c] * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_known() {
        assert!(!standalone_css().contains("var("), "a figure uses a colour that the palette lacks");
        for part in page_css().split("var(--").skip(1) {
            let name = part.split(')').next().unwrap_or_default();
            assert!(PALETTE.iter().any(|entry| entry.0 == name), "--{name}");
        }
    }

    #[test]
    fn ramps_run_from_pale_to_dark() {
        assert_eq!(width_colour(0, 3), "#cfe3f1");
        assert_eq!(width_colour(2, 3), "#0e4e8e");
        assert_eq!(exit_colour(0, 1), exit_colour(1, 3));
    }
}

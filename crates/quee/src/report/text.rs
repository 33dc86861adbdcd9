//! Numbers and names as people read them.

/// What stands where there is no number.
pub const DASH: &str = "–";

/// `text` with the characters that mean something in HTML and XML replaced, and without control characters, which XML
/// forbids.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => {}
            _ if character.is_control() => {}
            _ => out.push(character),
        }
    }
    out
}

/// `value` with `decimals` decimals and a true minus sign; a dash where it is not finite.
pub fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return DASH.to_owned();
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| c == '0' || c == '.') => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// A fraction as a percentage with one decimal, without the sign.
pub fn percent(fraction: f64) -> String {
    fixed(100.0 * fraction, 1)
}

/// Three significant digits without trailing zeros: 0.0213, 1.5, 12.3, 1230.
pub fn short(value: f64) -> String {
    let rounded = significant(value, 3);
    if !rounded.is_finite() {
        return DASH.to_owned();
    }
    format!("{rounded}").replace('-', "−")
}

/// `value` rounded to `digits` significant digits.
pub fn significant(value: f64, digits: i32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.*e}", (digits - 1).max(0) as usize).parse().unwrap_or(value)
}

/// A relative cost: three significant digits, zeros kept, so that columns of costs can be compared.
pub fn cost(value: f64) -> String {
    if !value.is_finite() || value <= 0.0 {
        return fixed(value, 3);
    }
    let whole = significant(value, 3).log10().floor();
    fixed(value, (2.0 - whole).clamp(0.0, 8.0) as usize)
}

/// A count with thousands set apart by commas.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A λ; the cheap end of the settings is infinite.
pub fn lambda(value: f64) -> String {
    if value.is_infinite() { "∞".to_owned() } else { short(value) }
}

/// Names joined as in a sentence: `a, b and c`.
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1 seed`, `3 seeds`.
pub fn plural(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Estimated width of a text in the figures' font, in units of its size.
pub fn width_of(text: &str) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '\'' | ' ' | 't' | 'f' | 'r' | '(' | ')' => 0.34,
        'm' | 'w' | 'M' | 'W' => 0.86,
        c if c.is_uppercase() => 0.70,
        c if c.is_ascii() => 0.58,
        _ => 0.75,
    };
    text.chars().map(of).sum()
}

/// `text` cut to `width` units of font size, with an ellipsis where something is missing.
pub fn shorten(text: &str, width: f64) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        if width_of(&kept) + 1.3 > width {
            break;
        }
        kept.push(character);
    }
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a<b>&\"c'\u{0}\u{1b}"), "a&lt;b&gt;&amp;&quot;c&#39;");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(fixed(-1.25, 1), "−1.2");
        assert_eq!(fixed(-0.001, 1), "0.0");
        assert_eq!(fixed(f64::NAN, 2), DASH);
        assert_eq!(percent(0.9734), "97.3");
        assert_eq!(short(0.02134), "0.0213");
        assert_eq!(short(1234.0), "1230");
        assert_eq!(cost(0.02), "0.0200");
        assert_eq!(cost(0.9999), "1.00");
        assert_eq!(cost(0.0), "0.000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(lambda(f64::INFINITY), "∞");
        assert_eq!(list(&["a".into(), "b".into(), "c".into()]), "a, b and c");
    }

    #[test]
    fn long_names_end_in_an_ellipsis() {
        assert_eq!(shorten("short", 20.0), "short");
        let cut = shorten(&"x".repeat(80), 10.0);
        assert!(cut.ends_with('…') && width_of(&cut) <= 11.0, "{cut}");
    }
}
